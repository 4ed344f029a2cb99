"""The workload plan as data: everything that satisfies one bundle, before anything happens.

``plan.py`` builds it; the bundle controller writes its objects, the kubelet carries them out. Names it fixes:

==================== =======================================================================================
Pod                  ``<bundle>-0``, label ``nanocloud.io/bundle=<bundle>``
PersistentVolumeClaim ``volume-<n>-<bundle>-0``
Secret               ``<bundle>-options``: keys are the names of the secret options
Secret               ``<bundle>-tls``: keys ``tls.key``, ``tls.crt``, ``ca.crt``; at ``/run/nanocloud/tls``
==================== =======================================================================================
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from nanocloud.models.binding import BindingAction
from nanocloud.models.bundle import BundleSecurity

if TYPE_CHECKING:
    from nanocloud.planning.contract import Exports
    from nanocloud.planning.profile import Profile, ResolvedOption
    from nanocloud.planning.reserved import Port
    from nanocloud.providers.binding import BindingArgument
    from nanocloud.providers.image import Digest

TLS_DIRECTORY = "/run/nanocloud/tls"
READY_COMMAND = "/usr/lib/nanocloud/ready.sh"


@attrs.frozen(kw_only=True)
class DesiredBundle:
    """The part of a Bundle that planning looks at."""

    namespace: str
    name: str
    service: str
    security: BundleSecurity = attrs.field(factory=BundleSecurity)
    force_bindings: bool = False


@attrs.frozen(kw_only=True)
class Target:
    """A service that can be selected: an installed bundle of the same namespace, or one about to be added."""

    bundle: str
    namespace: str
    exports: Exports
    options: Mapping[str, ResolvedOption]
    """Of its profile."""
    uid: str = ""
    """Of the bundle object: one that was removed and installed again has other data, and is bound anew."""

    @classmethod
    def of(cls, bundle: str, namespace: str, profile: Profile, exports: Exports, *, uid: str = "") -> Target:
        return cls(bundle=bundle, namespace=namespace, exports=exports, options=profile.options, uid=uid)

    @property
    def host(self) -> str:
        """The DNS name that every service exports as ``host`` when its label lists it."""
        return f"{self.bundle}.{self.namespace}.svc"


@attrs.frozen(kw_only=True)
class Inventory:
    """What exists already in the bundle's namespace."""

    installed: frozenset[str] = frozenset()
    """Names of its bundles."""
    targets: Mapping[str, Target] = attrs.field(factory=dict)
    """Bundle name -> what it offers; holds at least the selected services, also those not installed yet."""
    own_secrets: frozenset[str] = frozenset()
    """Secrets that belong to the bundle besides those the plan names; a label may refer to no others."""


@attrs.frozen(kw_only=True)
class SelectedService:
    """``option`` selects ``bundle``; one that is not installed is installed first, from the catalogue."""

    option: str
    bundle: str
    installed: bool


@attrs.frozen(kw_only=True)
class BindingStep:
    """One command to run in the selected service's container before this bundle's pod starts."""

    id: str
    """A DNS label, ``database-create-user-3f0c12ab34cd``: made from option, target, command and words, not values."""
    option: str
    target: str
    """The bundle whose container runs the command."""
    command: str
    words: tuple[str, ...]
    """The arguments as the label writes them: ``$option`` is not replaced, so they can be shown."""
    arguments: tuple[BindingArgument, ...] = attrs.field(repr=False)
    secret_keys: tuple[str | None, ...]
    """For each argument its key in the Secret ``<bundle>-options``; None where the argument is not secret."""
    fingerprint: str = attrs.field(repr=False)
    """Changes when an argument's value does. Made from secrets: store it sealed."""
    pending: bool
    """False: the profile records a success with these arguments, so it is skipped."""
    action: BindingAction = BindingAction.CREATE
    """Rotate where only a secret differs from what the profile records."""
    target_uid: str = ""
    verify: bool = False
    """Whether the target's image has a companion command that tells if it worked."""
    revocable: bool = False
    """Whether the target's image has a companion command that takes it back."""
    owned: Mapping[str, str] = attrs.field(factory=dict)
    """Position of an argument, from 1, to its value: names that belong to this bundle in the target."""

    @property
    def shown_arguments(self) -> tuple[str | None, ...]:
        """None stands for a secret."""
        return tuple(None if argument.secret else argument.value for argument in self.arguments)


@attrs.frozen(kw_only=True)
class Claim:
    """A volume that the pod needs."""

    name: str
    """Of the PersistentVolumeClaim: ``volume-1-mariadb-0``."""
    volume: str
    """Of the pod's volume: ``volume-1``."""
    size: str
    """Kubernetes quantity as written: ``10Gi``."""
    size_bytes: int
    mount_path: str
    encryption_key: str | None = None
    """Name of the volume key, where the volume is encrypted."""
    fs_type: str = "ext4"


@attrs.frozen(kw_only=True)
class SecretPlan:
    """A Secret to keep."""

    name: str
    values: Mapping[str, str] = attrs.field(repr=False)
    """Key -> value. The keys are the names of the secret options, and ``<binding step id>.<n>`` for an argument that
    is more than one secret option's value."""


@attrs.frozen(kw_only=True)
class WorkloadPlan:
    namespace: str
    bundle: str
    service: str
    image: str
    """``mariadb@sha256:...``: the reference without its tag, pinned."""
    digest: Digest
    options: Mapping[str, ResolvedOption]
    services: tuple[SelectedService, ...] = ()
    bindings: tuple[BindingStep, ...] = ()
    """In the order in which they run within one target; targets are independent."""
    ports: tuple[Port, ...] = ()
    claims: tuple[Claim, ...] = ()
    secrets: tuple[SecretPlan, ...] = ()
    """``<bundle>-options`` when an option is secret. The TLS Secret is not here: the node's CA makes its values."""
    tls_secret: str | None = None
    """``<bundle>-tls`` when an option uses ``!tls``: a certificate is needed before the pod starts."""
    pod: dict[str, Any]
    """A Kubernetes Pod without status and owner; holds no secret value, so a changed secret does not change it."""
    claim_objects: tuple[dict[str, Any], ...] = ()
    """The PersistentVolumeClaims of ``claims``."""

    @property
    def services_to_add(self) -> tuple[str, ...]:
        """Catalog services to install first, each once."""
        return tuple(dict.fromkeys(s.bundle for s in self.services if not s.installed))

    @property
    def pod_hash(self) -> str:
        """Equal for equal pods; a changed hash means that the pod must be replaced."""
        canonical = json.dumps(self.pod, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def pending_bindings(self) -> tuple[BindingStep, ...]:
        return tuple(step for step in self.bindings if step.pending)
