"""``POST .../bundles/{name}/plan``: what creating or changing a bundle would do, without doing it.

``POST .../bundles/{name}/plan/uninstall`` says the same of taking it down.

The body is the Bundle as it shall be; with ``Content-Type: application/merge-patch+json`` it is laid over the one that
is there, as a PATCH would be. It may be a List as well: the first item is the Bundle, the others are taken to be there
as they stand, so that services that come together can be planned together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from starlette.responses import JSONResponse
from starlette.routing import Route

from nanocloud.apiserver.bodies import content_type
from nanocloud.apiserver.exchange import API_VERSION, read_json
from nanocloud.apiserver.resources import MERGE_PATCH, validate_fields
from nanocloud.controllers.removals import Removals
from nanocloud.errors import BadRequestError, NanocloudError
from nanocloud.models.bundle import BUNDLE
from nanocloud.models.converter import structure
from nanocloud.models.meta import name_of
from nanocloud.models.patch import merge_patch
from nanocloud.objects import rules
from nanocloud.planning.diff import describe, diff, state_change
from nanocloud.planning.removal import removal_changes

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from nanocloud.controllers.planner import PlannedBundle, Planner
    from nanocloud.models.meta import Object
    from nanocloud.objects import ObjectStore
    from nanocloud.planning.removal import Removal
    from nanocloud.planning.workload import WorkloadPlan

PATH = "/apis/nanocloud.io/v1/namespaces/{namespace}/bundles/{name}/plan"
UNINSTALL_PATH = f"{PATH}/uninstall"
_MOST_ITEMS = 256


@attrs.frozen(kw_only=True)
class UninstallRequest:
    """How it would be uninstalled."""

    keep_services: bool = False


@attrs.frozen(kw_only=True)
class Plans:
    planner: Planner
    store: ObjectStore
    unfit: NanocloudError | None
    """Why this node cannot run services, if it cannot."""

    def routes(self) -> list[Route]:
        # A plan is read, but POST: only those who may change bundles are told what is in them.
        return [Route(PATH, self._plan, methods=["POST"]), Route(UNINSTALL_PATH, self._uninstall, methods=["POST"])]

    async def _plan(self, request: Request) -> Response:
        if self.unfit is not None:
            raise self.unfit
        namespace, name = request.path_params["namespace"], request.path_params["name"]
        (stored, wanted, warnings), *companions = [
            await self._read(request, body, namespace, name if index == 0 else None)
            for index, body in enumerate(_bodies(await read_json(request)))
        ]
        others = {name_of(other): other for _, other, _ in companions}
        after = await self.planner.plan(wanted, imagine=True, others=others)
        before = None if stored is None else await self._present(stored)
        runs = None if stored is None else _starts(stored), _starts(wanted)
        planned = [*_additions(after), _change(after, before, runs, installed=stored is not None)]
        return JSONResponse(_answer(namespace, name, planned), headers=warnings)

    async def _read(
        self, request: Request, body: dict[str, Any], namespace: str, name: str | None
    ) -> tuple[Object | None, Object, dict[str, str]]:
        """What is stored of a Bundle, how it shall be, and headers for the answer; without ``name`` it has its own."""
        name = name or body["metadata"].get("name")
        if not isinstance(name, str) or not name:
            raise BadRequestError("every item but the first needs metadata.name")
        body["metadata"] |= {"namespace": namespace, "name": name}
        stored = await self.store.find(BUNDLE, namespace, name)
        if content_type(request) == MERGE_PATCH:
            body = merge_patch(stored or {}, body)
        warnings = validate_fields(BUNDLE, body, request)
        if stored is None:
            return None, rules.new_object(BUNDLE, body), warnings
        return stored, rules.changed_object(BUNDLE, stored, body, None), warnings

    async def _uninstall(self, request: Request) -> Response:
        namespace, name = request.path_params["namespace"], request.path_params["name"]
        asked = structure(await read_json(request), UninstallRequest, what="request")
        removals = Removals(store=self.store, profiles=self.planner.profiles)
        found = await removals.plan(namespace, name, keep_services=asked.keep_services)
        leaving = {removal.bundle for removal in found}
        return JSONResponse(_answer(namespace, name, [_removal(removal, leaving) for removal in found]))

    async def _present(self, stored: Object) -> WorkloadPlan | None:
        """The plan of the bundle as it is; None where it cannot be planned, which the change may be about to mend."""
        try:
            return (await self.planner.plan(stored, imagine=True)).plan
        except NanocloudError:
            return None


def _bodies(data: Any) -> list[dict[str, Any]]:
    """One Bundle, or the items of a List; each with metadata."""
    is_list = isinstance(data, dict) and data.get("kind") in ("List", "BundleList")
    items = data.get("items") if is_list else [data]
    if not isinstance(items, list) or not items or len(items) > _MOST_ITEMS:
        raise BadRequestError(f"items must be an array of 1 to {_MOST_ITEMS} Bundles")
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.setdefault("metadata", {}), dict):
            raise BadRequestError("the body must be a Bundle")
    return items


def _answer(namespace: str, name: str, bundles: list[dict[str, Any]]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": API_VERSION, "kind": "BundlePlan", "metadata": metadata, "status": {"bundles": bundles}}


def _removal(removal: Removal, leaving: set[str]) -> dict[str, Any]:
    changes = removal_changes(removal, leaving)
    return {
        "name": removal.bundle,
        "service": removal.service,
        "action": "uninstall",
        "reason": removal.reason,
        "installed": True,
        "usedBy": list(removal.used_by),
        "changes": changes.to_json(),
        "text": changes.text(),
    }


def _additions(planned: PlannedBundle) -> list[dict[str, Any]]:
    unique = {addition.plan.bundle: addition for addition in planned.additions}
    return [_change(addition, None, (None, True), installed=False) for addition in unique.values()]


def _starts(bundle: Object) -> bool:
    return bool(bundle["spec"].get("start", True))


def _change(
    planned: PlannedBundle, before: WorkloadPlan | None, runs: tuple[bool | None, bool], *, installed: bool
) -> dict[str, Any]:
    changes = diff(before, planned.plan)
    if runs != (True, True):  # then there is no pod that could be replaced
        changes = changes.without("pod").joined(state_change(*runs))
    return {
        "name": planned.plan.bundle,
        "service": planned.plan.service,
        "action": "change" if installed else "install",
        "installed": installed,
        "changes": changes.to_json(),
        "text": changes.text(),
        "plan": describe(planned.plan),
    }
