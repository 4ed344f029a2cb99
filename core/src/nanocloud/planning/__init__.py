"""Planning: bundle + image contract + profiles -> profile -> workload plan. Pure: nothing here touches the node.

The way of one bundle::

    contract, exports = image_contract(image.config.labels), image_exports(image.config.labels)
    services = select_services(contract, given, previous)     # install those that are missing; make a Target of each
    resolution = await resolve(ResolveRequest(...), expand=expander(macro_providers))
    profile = Profile.of(resolution, service=..., image=image.digest, previous=previous)
    workload = plan(desired, profile, contract, image, Inventory(...))
"""

from nanocloud.planning.catalogue import describe_image
from nanocloud.planning.contract import Exports, ImageContract
from nanocloud.planning.diff import PlanDiff, describe, diff
from nanocloud.planning.expander import expander
from nanocloud.planning.exports import image_exports
from nanocloud.planning.label import image_contract
from nanocloud.planning.plan import plan
from nanocloud.planning.profile import BindingRecord, Profile, ResolvedOption, profile_from_json, profile_to_json
from nanocloud.planning.resolution import Expand, Resolution, ResolveRequest
from nanocloud.planning.resolve import resolve, select_services
from nanocloud.planning.schema import options_schema
from nanocloud.planning.workload import DesiredBundle, Inventory, Target, WorkloadPlan

__all__ = [
    "BindingRecord",
    "DesiredBundle",
    "Expand",
    "Exports",
    "ImageContract",
    "Inventory",
    "PlanDiff",
    "Profile",
    "Resolution",
    "ResolveRequest",
    "ResolvedOption",
    "Target",
    "WorkloadPlan",
    "describe",
    "describe_image",
    "diff",
    "expander",
    "image_contract",
    "image_exports",
    "options_schema",
    "plan",
    "profile_from_json",
    "profile_to_json",
    "resolve",
    "select_services",
]
