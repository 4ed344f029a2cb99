"""Watch: a stream of events, one JSON object a line, that follows objects from a revision on.

A stream ends cleanly after ``timeoutSeconds`` (between 30 and 60 minutes where the client names none), when the client
leaves, and when the server stops. What ends it otherwise is told by one ERROR event that holds a Status: 410 where the
place is forgotten, 503 where the storage does not answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import trio

from nanocloud.ambient import surroundings
from nanocloud.apiserver import negotiation, printing
from nanocloud.apiserver.resources import selector_of, wanted_revision
from nanocloud.apiserver.status import watch_error
from nanocloud.errors import BadRequestError, NanocloudError
from nanocloud.objects import WatchType

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from nanocloud.apiserver.context import ApiContext
    from nanocloud.apiserver.paths import Target
    from nanocloud.models.meta import Object
    from nanocloud.models.selectors import Selector
    from nanocloud.objects import ObjectWatcher, WatchEvent

BOOKMARK_SECONDS = 60.0
_LONGEST_SECONDS = 24 * 3600
_INITIAL_EVENTS_END = "k8s.io/initial-events-end"


class WatchStream:
    """The answer to a watch request, as an ASGI application."""

    def __init__(self, context: ApiContext, request: Request, target: Target) -> None:
        query = request.query_params
        self._store, self._target = context.store, target
        self._form = negotiation.form_of(request, printing.SHAPES)
        self._printer = printing.Printer(target.kind, self._form, query)
        self._selector: Selector = selector_of(request, target.kind)
        self._bookmarks = negotiation.flag(query, "allowWatchBookmarks")
        self._after = wanted_revision(context, request)
        asked = negotiation.number(query, "timeoutSeconds")
        # Spread, so that the watches of a client that began together do not end together.
        self._seconds = min(asked, _LONGEST_SECONDS) if asked else surroundings().rng.uniform(1800, 3600)
        self._initial = self._initial_events(query)
        self._is_first = True

    def _initial_events(self, query: object) -> bool:
        """Whether the present objects come first, as ADDED."""
        assert hasattr(query, "get")
        asked = query.get("sendInitialEvents")
        match = query.get("resourceVersionMatch")
        self._mark_end = False
        if asked is None:
            if match:
                raise BadRequestError(
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
                )
            return self._after is None
        if match != "NotOlderThan" or not self._bookmarks:
            raise BadRequestError(
                "sendInitialEvents requires resourceVersionMatch=NotOlderThan and allowWatchBookmarks=true"
            )
        initial = negotiation.flag({"sendInitialEvents": asked}, "sendInitialEvents")
        self._mark_end = initial
        return initial

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        closing: trio.Event | None = scope.get("state", {}).get("closing")
        media = (
            b"application/json;stream=watch" if self._form.shape is negotiation.Shape.OBJECT else b"application/json"
        )
        headers = [(b"content-type", media), (b"cache-control", b"no-cache, private")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        # Without a first piece some clients do not return from the request.
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        is_there = True

        async with trio.open_nursery() as nursery:

            async def until_gone() -> None:
                nonlocal is_there
                while (await receive())["type"] != "http.disconnect":
                    pass
                is_there = False
                nursery.cancel_scope.cancel()

            async def until_closing(event: trio.Event) -> None:
                await event.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(until_gone)
            if closing is not None:
                nursery.start_soon(until_closing, closing)
            with trio.move_on_after(self._seconds):
                await self._follow(send)
            nursery.cancel_scope.cancel()
        if is_there:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _follow(self, send: Send) -> None:
        try:
            after = self._after or self._store.revision
            if self._initial:
                after = await self._send_present(send)
            async with self._store.watch(self._target.kind, self._target.namespace, after=after) as events:
                await self._send_changes(events, send)
        except NanocloudError as exc:  # the answer has begun: only an event can tell
            await _send_line(send, watch_error(exc))

    async def _send_present(self, send: Send) -> int:
        matches = self._selector.matches if self._selector else None
        present = await self._store.list(self._target.kind, self._target.namespace, matches=matches)
        for obj in present.items:
            await self._send_object(send, WatchType.ADDED.value, obj)
        if self._mark_end:
            await _send_line(send, self._bookmark(present.revision, {_INITIAL_EVENTS_END: "true"}))
        return present.revision

    async def _send_changes(self, events: ObjectWatcher, send: Send) -> None:
        is_plain = self._form.is_plain and not self._selector
        while True:
            with trio.move_on_after(BOOKMARK_SECONDS if self._bookmarks else float("inf")) as scope:
                if is_plain:
                    kind, encoded = await events.next_json()
                else:
                    event = await events.__anext__()
            if scope.cancelled_caught:
                await _send_line(send, self._bookmark(events.progress(), None))
            elif is_plain:
                line = b'{"type":"%b","object":%b}\n' % (kind.value.encode(), encoded)
                await send({"type": "http.response.body", "body": line, "more_body": True})
            elif (seen := self._seen(event)) is not None:
                await self._send_object(send, *seen)

    def _seen(self, event: WatchEvent) -> tuple[str, Object] | None:
        """The event as this selection sees it: an object that begins to match is ADDED, one that ceases DELETED."""
        if not self._selector:
            return event.type.value, event.object
        is_now = event.type is not WatchType.DELETED and self._selector.matches(event.object)
        was = event.previous is not None and self._selector.matches(event.previous)
        if is_now:
            return (WatchType.MODIFIED if was else WatchType.ADDED).value, event.object
        if not was or event.previous is None:
            return None
        last = event.previous | {"metadata": event.previous["metadata"] | {"resourceVersion": str(event.revision)}}
        return WatchType.DELETED.value, last

    def _bookmark(self, revision: int, annotations: dict[str, str] | None) -> Object:
        kind = self._target.kind
        meta: Object = {"resourceVersion": str(revision), "creationTimestamp": None}
        if annotations:
            meta["annotations"] = annotations
        mark: Object = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": meta}
        if self._form.shape is negotiation.Shape.TABLE:
            mark = self._printer.watched(mark, first=self._is_first)
            mark["rows"], self._is_first = [], False
        elif self._form.shape is not negotiation.Shape.OBJECT:
            mark = self._printer.one(mark)
        return {"type": "BOOKMARK", "object": mark}

    async def _send_object(self, send: Send, kind: str, obj: Object) -> None:
        shown = self._printer.watched(obj, first=self._is_first)
        self._is_first = False
        await _send_line(send, {"type": kind, "object": shown})


async def _send_line(send: Send, event: Object) -> None:
    await send({"type": "http.response.body", "body": orjson.dumps(event) + b"\n", "more_body": True})
