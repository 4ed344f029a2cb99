"""``POST .../bundles/{name}/plan``: what creating or changing a bundle would do, without doing it.

The body is the Bundle as it shall be; with ``Content-Type: application/merge-patch+json`` it is laid over the one that
is there, as a PATCH would be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from starlette.responses import JSONResponse
from starlette.routing import Route

from nanocloud.apiserver.bodies import content_type
from nanocloud.apiserver.exchange import API_VERSION, read_json
from nanocloud.apiserver.resources import MERGE_PATCH, validate_fields
from nanocloud.errors import BadRequestError, NanocloudError
from nanocloud.models.bundle import BUNDLE
from nanocloud.models.meta import name_of, namespace_of
from nanocloud.models.patch import merge_patch
from nanocloud.objects import rules
from nanocloud.planning.diff import describe, diff

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from nanocloud.controllers.planner import PlannedBundle, Planner
    from nanocloud.models.meta import Object
    from nanocloud.objects import ObjectStore
    from nanocloud.planning.workload import WorkloadPlan

PATH = "/apis/nanocloud.io/v1/namespaces/{namespace}/bundles/{name}/plan"


@attrs.frozen(kw_only=True)
class Plans:
    planner: Planner
    store: ObjectStore
    unfit: NanocloudError | None
    """Why this node cannot run services, if it cannot."""

    def routes(self) -> list[Route]:
        return [Route(PATH, self._plan, methods=["POST"])]

    async def _plan(self, request: Request) -> Response:
        if self.unfit is not None:
            raise self.unfit
        namespace, name = request.path_params["namespace"], request.path_params["name"]
        body = await read_json(request)
        if not isinstance(body, dict) or not isinstance(body.setdefault("metadata", {}), dict):
            raise BadRequestError("the body must be a Bundle")
        body["metadata"] |= {"namespace": namespace, "name": name}
        stored = await self.store.find(BUNDLE, namespace, name)
        if content_type(request) == MERGE_PATCH:
            body = merge_patch(stored or {}, body)
        warnings = validate_fields(BUNDLE, body, request)
        wanted = rules.new_object(BUNDLE, body) if stored is None else rules.changed_object(BUNDLE, stored, body, None)
        after = await self.planner.plan(wanted, imagine=True)
        before = None if stored is None else await self._present(stored)
        answer: dict[str, Any] = {
            "apiVersion": API_VERSION,
            "kind": "BundlePlan",
            "metadata": {"name": name_of(wanted), "namespace": namespace_of(wanted)},
            "status": {"bundles": [*_additions(after), _change(after, before, installed=stored is not None)]},
        }
        return JSONResponse(answer, headers=warnings)

    async def _present(self, stored: Object) -> WorkloadPlan | None:
        """The plan of the bundle as it is; None where it cannot be planned, which the change may be about to mend."""
        try:
            return (await self.planner.plan(stored, imagine=True)).plan
        except NanocloudError:
            return None


def _additions(planned: PlannedBundle) -> list[dict[str, Any]]:
    unique = {addition.plan.bundle: addition for addition in planned.additions}
    return [_change(addition, None, installed=False) for addition in unique.values()]


def _change(planned: PlannedBundle, before: WorkloadPlan | None, *, installed: bool) -> dict[str, Any]:
    changes = diff(before, planned.plan)
    return {
        "name": planned.plan.bundle,
        "service": planned.plan.service,
        "installed": installed,
        "changes": changes.to_json(),
        "text": changes.text(),
        "plan": describe(planned.plan),
    }
