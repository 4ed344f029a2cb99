"""Bundle actions: ``POST .../bundles/<name>/actions/<start|stop|restart|uninstall>``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nanocloud.ambient import wall_clock
from nanocloud.apiserver import negotiation, printing
from nanocloud.apiserver.resources import delete
from nanocloud.apiserver.status import MethodNotAllowedError
from nanocloud.errors import NotFoundError
from nanocloud.models.bundle import RESTARTED_AT

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from nanocloud.apiserver.context import ApiContext
    from nanocloud.apiserver.paths import Target
    from nanocloud.models.meta import Object

ACTIONS = ("start", "stop", "restart", "uninstall")


async def act(context: ApiContext, request: Request, target: Target) -> Response:
    """Do one action and answer with the bundle as it is then.

    Raises:
        NotFoundError: no such action, or bundle.
    """
    if request.method != "POST":
        raise MethodNotAllowedError(f"an action is a POST, not a {request.method}")
    if target.rest not in ACTIONS:
        raise NotFoundError(f"there is no action {target.rest[:80]!r}; bundles have {', '.join(ACTIONS)}")
    if target.rest == "uninstall":
        return await delete(context, request, target)

    def change(bundle: Object) -> None:
        if target.rest == "restart":
            annotations = bundle["metadata"].setdefault("annotations", {})
            annotations[RESTARTED_AT] = datetime.fromtimestamp(wall_clock(), UTC).isoformat()
        else:
            bundle["spec"]["start"] = target.rest == "start"

    form = negotiation.form_of(request)
    dry_run = negotiation.dry_run(request.query_params)
    made = await context.store.modify(target.kind, target.where, target.name or "", change, dry_run=dry_run)
    return printing.send(made, form)
