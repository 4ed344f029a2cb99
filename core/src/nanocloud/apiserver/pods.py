"""Pod subresources: logs as they are written, and processes run in a container.

The kubelet does both; ``PodAccess`` is what this server asks of it.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Protocol

import trio

from nanocloud.ambient import wall_clock
from nanocloud.apiserver.negotiation import flag, number
from nanocloud.errors import BadRequestError, UnavailableError
from nanocloud.models.meta import parse_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from nanocloud.apiserver.context import ApiContext
    from nanocloud.apiserver.paths import Target
    from nanocloud.providers.runtime import ExecSession, ExecSpec

MAX_ARGUMENTS = 1024


class PodAccess(Protocol):
    """Reaches into the pods of the node. ``container`` None is the pod's first one."""

    def read_logs(
        self,
        namespace: str,
        pod: str,
        container: str | None,
        *,
        follow: bool = False,
        tail_lines: int | None = None,
        since: float | None = None,
        timestamps: bool = False,
        previous: bool = False,
        limit_bytes: int | None = None,
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The log's text in pieces. ``since`` is in seconds since the epoch.

        Raises (on entering):
            NotFoundError: no such pod.
            BadRequestError: no such container, or no run of it.
        """

    def exec(
        self, namespace: str, pod: str, container: str | None, spec: ExecSpec, *, as_binding: bool = False
    ) -> AbstractAsyncContextManager[ExecSession]:
        """Run one more process in the container; ``as_binding`` as a binding command runs there.

        Raises (on entering):
            NotFoundError: no such pod.
            BadRequestError: no such container, or it does not run.
        """


def access_of(context: ApiContext) -> PodAccess:
    if context.pods is None:
        raise UnavailableError("this node runs no pods: no runtime plugin is installed")
    return context.pods


class LogStream:
    """The answer to ``GET pods/<name>/log``, as an ASGI application."""

    def __init__(self, context: ApiContext, request: Request, target: Target) -> None:
        query = request.query_params
        since_seconds, since_time = number(query, "sinceSeconds", minimum=1), query.get("sinceTime")
        if since_seconds is not None and since_time:
            raise BadRequestError("at most one of sinceTime or sinceSeconds may be specified")
        since = wall_clock() - since_seconds if since_seconds is not None else None
        if since_time and (since := parse_time(since_time)) is None:
            raise BadRequestError(f"sinceTime is {since_time[:80]!r}; it must be an RFC 3339 time")
        if query.get("stream") not in (None, "", "All"):
            raise BadRequestError(f"stream is {query['stream'][:80]!r}; only All is served")
        self._log = access_of(context).read_logs(
            target.where,
            target.name or "",
            query.get("container") or None,
            follow=flag(query, "follow"),
            tail_lines=number(query, "tailLines"),
            since=since,
            timestamps=flag(query, "timestamps"),
            previous=flag(query, "previous"),
            limit_bytes=number(query, "limitBytes", minimum=1),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        closing: trio.Event | None = scope.get("state", {}).get("closing")
        async with AsyncExitStack() as stack:
            # Entering may fail, and the failure is answered as a Status: nothing may have been sent before.
            pieces = await stack.enter_async_context(self._log)
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [(b"content-type", b"text/plain; charset=utf-8")],
                }
            )
            await send({"type": "http.response.body", "body": b"", "more_body": True})
            nursery = await stack.enter_async_context(trio.open_nursery())

            async def until_gone() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                nursery.cancel_scope.cancel()

            async def until_closing(event: trio.Event) -> None:
                await event.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(until_gone)
            if closing is not None:
                nursery.start_soon(until_closing, closing)
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            nursery.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
