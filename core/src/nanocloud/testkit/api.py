"""ApiClient: the API server as its clients see it, in process: no socket, no thread, no time of its own.

A request runs through the ASGI application in the task that makes it, so a test in virtual time decides when it ends.
Nothing is buffered: a watch sends its next event when the last one was taken. Who calls is given as a ``User``; an
application with an authenticator of its own reads headers as it does behind a socket.
"""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self
from urllib.parse import quote, urlencode

import attrs
import orjson
import trio
from starlette.types import Message

from nanocloud.apiserver.app import build_app
from nanocloud.apiserver.auth import AUTHENTICATED, MASTERS, User
from nanocloud.apiserver.context import ApiContext
from nanocloud.client.api import ApiError
from nanocloud.concurrency import unwrapped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence

    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp, Scope

    from nanocloud.apiserver.pods import PodAccess
    from nanocloud.controllers.transfer import ProfileTransfer
    from nanocloud.extension import Admission
    from nanocloud.models.kinds import ResourceKind
    from nanocloud.models.meta import Object
    from nanocloud.objects import ObjectStore

ADMIN = User(name="admin", groups=frozenset({MASTERS, AUTHENTICATED}))
GUEST = User(name="guest", groups=frozenset({AUTHENTICATED}))
"""Known, and without any right of its own."""
NOBODY: User | None = None
"""Who shows no credentials."""

PatchForm = Literal["merge", "json", "strategic-merge"]


class Callers:
    """The authenticator of applications that an ApiClient drives: the caller is whom the client says."""

    async def authenticate(self, scope: Mapping[str, Any]) -> User | None:
        caller: User | None = scope["state"]["caller"]
        return caller


class Event(NamedTuple):
    """One watch event: ADDED, MODIFIED, DELETED or BOOKMARK, and the object as it is then."""

    type: str
    object: Object


@attrs.frozen
class Answer:
    """One whole answer. Header names are in lower case."""

    path: str
    code: int
    headers: Mapping[str, str]
    content: bytes = attrs.field(repr=False)

    @property
    def text(self) -> str:
        return self.content.decode()

    def json(self) -> Any:
        return orjson.loads(self.content)

    def error(self) -> ApiError:
        """What an answer of 400 and above says, as the error that it is."""
        is_status = self.headers.get("content-type") == "application/json"
        return ApiError(self.code, self.json() if is_status else {"message": self.text}, self.path)


@attrs.frozen
class Page:
    """A list, or one page of it: ``next`` is the token of the page that follows, empty at the end."""

    items: Sequence[Object]
    resource_version: str
    next: str = ""


class Watch:
    """The events of one watch, in order; it ends when the server ends the stream."""

    def __init__(self, exchange: _Exchange, path: str) -> None:
        self._exchange, self._path = exchange, path
        self._lines = deque[bytes]()
        self._rest = b""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Raises ApiError for an ERROR event, which holds a Status."""
        while not self._lines:
            try:
                message = await self._exchange.received.receive()
            except trio.EndOfChannel:
                raise StopAsyncIteration from None
            *lines, self._rest = (self._rest + message.get("body", b"")).split(b"\n")
            self._lines.extend(lines)
        event = orjson.loads(self._lines.popleft())
        if event["type"] == "ERROR":
            raise ApiError(event["object"]["code"], event["object"], self._path)
        return Event(event["type"], event["object"])


@attrs.frozen
class ApiClient:
    """Calls of one caller. ``namespace`` is ignored where a kind has none; ``query`` are parameters of the URL.

    Every call raises ApiError where the server says no: ``code`` is the HTTP status, ``cause`` the Status object.
    """

    app: ASGIApp
    caller: User | None = ADMIN
    closing: trio.Event = attrs.field(factory=trio.Event, repr=False)
    """Set, it tells the application that the server stops: streams end."""

    @classmethod
    def over(
        cls,
        store: ObjectStore,
        *,
        caller: User | None = ADMIN,
        pods: PodAccess | None = None,
        transfer: ProfileTransfer | None = None,
        admission: Sequence[Admission] = (),
        routes: Sequence[BaseRoute] = (),
    ) -> ApiClient:
        """A client of an API server over ``store``, which believes what its clients say who they are."""
        context = ApiContext(
            store=store, authenticator=Callers(), pods=pods, transfer=transfer, admission=admission, routes=routes
        )
        return cls(build_app(context), caller)

    def acting_as(self, caller: User | None) -> ApiClient:
        """The same server, called by another."""
        return attrs.evolve(self, caller=caller)

    # ---- objects -----------------------------------------------------------------------------------------------------

    async def get(self, kind: ResourceKind, name: str, *, namespace: str = "default") -> Object:
        return await self._object("GET", path_of(kind, name, namespace=namespace))

    async def list(
        self, kind: ResourceKind, *, namespace: str | None = "default", query: Mapping[str, str] | None = None
    ) -> Page:
        """``namespace`` None lists all of them."""
        found = await self._object("GET", path_of(kind, namespace=namespace), query=query)
        meta = found["metadata"]
        return Page(found["items"], meta["resourceVersion"], meta.get("continue", ""))

    async def create(self, kind: ResourceKind, obj: Object, *, query: Mapping[str, str] | None = None) -> Object:
        return await self._object("POST", path_of(kind, namespace=_namespace(obj)), obj, query=query)

    async def update(
        self,
        kind: ResourceKind,
        obj: Object,
        *,
        subresource: str | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Object:
        more = (subresource,) if subresource else ()
        path = path_of(kind, obj["metadata"]["name"], *more, namespace=_namespace(obj))
        return await self._object("PUT", path, obj, query=query)

    async def patch(
        self,
        kind: ResourceKind,
        name: str,
        change: Any,
        *,
        form: PatchForm = "merge",
        namespace: str = "default",
        subresource: str | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Object:
        path = path_of(kind, name, *((subresource,) if subresource else ()), namespace=namespace)
        headers = {"content-type": f"application/{form}-patch+json"}
        return await self._object("PATCH", path, change, query=query, headers=headers)

    async def delete(
        self, kind: ResourceKind, name: str, *, namespace: str = "default", options: Object | None = None
    ) -> Object:
        """The object as it waits for its finalizers, or a Status once it is gone; ``options`` are DeleteOptions."""
        return await self._object("DELETE", path_of(kind, name, namespace=namespace), options)

    async def call(
        self,
        kind: ResourceKind,
        name: str,
        subresource: str,
        body: Any = None,
        *,
        method: str = "POST",
        namespace: str = "default",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """A subresource with a body of its own: ``log``, ``actions/stop``, ``exportProfile``."""
        path = path_of(kind, name, subresource, namespace=namespace)
        return await self.request(method, path, body, query=query, headers=headers)

    @asynccontextmanager
    async def watch(
        self,
        kind: ResourceKind,
        *,
        namespace: str | None = "default",
        after: str | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Watch]:
        """Changes after the resource version ``after``; None: what is there first, as ADDED, then the changes.

        Leaving the context is the client's leaving; it waits until the server has noticed.
        """
        wanted = {"watch": "true", **({} if after is None else {"resourceVersion": after}), **(query or {})}
        path, exchange = path_of(kind, namespace=namespace), _Exchange(b"")
        with unwrapped():
            async with trio.open_nursery() as nursery, exchange.received:
                nursery.start_soon(exchange.run, self.app, self._scope("GET", path, wanted, headers or {}))
                try:
                    answer = await exchange.begin(path)
                    if answer.code >= 400:
                        rest = b"".join([message.get("body", b"") async for message in exchange.received])
                        raise attrs.evolve(answer, content=rest).error()
                    yield Watch(exchange, path)
                finally:
                    exchange.gone.set()

    # ---- anything ----------------------------------------------------------------------------------------------------

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Any request and its answer. ``path`` may hold a query. A body of bytes goes as it is, others as JSON."""
        given = {name.lower(): value for name, value in (headers or {}).items()}
        if body is not None and not isinstance(body, bytes):
            body, given = orjson.dumps(body), {"content-type": "application/json"} | given
        if body:
            given = {"content-length": str(len(body))} | given
        exchange, pieces = _Exchange(body or b""), list[bytes]()
        start: Message = {}

        async def send(message: Message) -> None:
            await trio.lowlevel.checkpoint()
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                pieces.append(message.get("body", b""))

        await self.app(self._scope(method, path, query or {}, given), exchange.receive, send)
        answer = _answer(path, start, b"".join(pieces))
        if answer.code >= 400:
            raise answer.error()
        return answer

    async def _object(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Object:
        found: Object = (await self.request(method, path, body, query=query, headers=headers)).json()
        return found

    def _scope(self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Scope:
        path, _, written = path.partition("?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "https",
            "path": path,
            "raw_path": quote(path).encode(),
            "root_path": "",
            "query_string": "&".join(filter(None, [written, urlencode(query)])).encode(),
            "headers": [
                (b"host", b"node"),
                *((name.lower().encode(), value.encode()) for name, value in headers.items()),
            ],
            "server": ("node", 443),
            "client": ("127.0.0.1", 1),
            "state": {"closing": self.closing, "caller": self.caller},
        }


def path_of(kind: ResourceKind, name: str | None = None, *more: str, namespace: str | None = "default") -> str:
    """The path of a kind's collection, of one object of it (``name``), or of something below that (``more``)."""
    base = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    where = f"/namespaces/{namespace}" if namespace and kind.namespaced else ""
    return "/".join([base + where, kind.plural, *([name] if name is not None else []), *more])


async def refusal(call: Awaitable[object]) -> ApiError:
    """The error that a call ends with; AssertionError where the server said yes."""
    try:
        answer = await call
    except ApiError as error:
        return error
    raise AssertionError(f"not refused: {answer}")


def _namespace(obj: Object) -> str:
    return str(obj["metadata"].get("namespace") or "default")


class _Exchange:
    """One request on its way: what the application receives, and what it sends, one message at a time."""

    def __init__(self, body: bytes) -> None:
        self.gone = trio.Event()
        """The client left."""
        self._sent, self.received = trio.open_memory_channel[Message](0)
        self._body: bytes | None = body

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        async with self._sent:
            await app(scope, self.receive, self._send)

    async def receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def begin(self, path: str) -> Answer:
        """The answer's head."""
        return _answer(path, await self.received.receive(), b"")

    async def _send(self, message: Message) -> None:
        try:
            await self._sent.send(message)
        except trio.BrokenResourceError:
            pass  # the client left; a server drops what is still written to it


def _answer(path: str, start: Message, content: bytes) -> Answer:
    headers = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    return Answer(path, start["status"], headers, content)
