"""One connection of the API server: HTTP/1.1 requests one after another, each answered by the ASGI application.

Everything runs in the connection's own task; nothing is spawned for a request, and a small answer is one write. Bytes
are read when the application asks for them, so a client that sends more than is read meets TCP's flow control. One
cancel scope holds the connection: it has a deadline while a head or the taking of an answer is waited for, and a client
that is gone while something is sent to it cancels the request that way.
"""

from __future__ import annotations

from importlib import import_module
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

import structlog
import trio

from nanocloud.apiserver.http_answers import CONTINUE, Answer, plain_answer
from nanocloud.apiserver.http_requests import MAX_HEAD_BYTES, Request, RequestError, parse_request
from nanocloud.concurrency import in_thread

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from starlette.types import ASGIApp

    Address = tuple[str, int] | None

log = structlog.get_logger(__name__)

HEAD_SECONDS = 10.0
"""From the first byte of a head to its last."""
STALL_SECONDS = 60.0
"""For a client to take a piece of an answer."""
_PIECE_BYTES = 256 * 1024
_FAR_AHEAD_BYTES = 256 * 1024
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


class Stream(Protocol):
    """What a connection runs on; ``tls.TlsStream`` says more."""

    async def receive_some(self) -> bytes: ...

    def send_now(self, data: bytes) -> bool: ...

    async def flush(self) -> None: ...


class Connection:
    """``state`` is what every request finds in ``scope["state"]``; ``closing`` in it is set when the server stops."""

    def __init__(
        self,
        app: ASGIApp,
        stream: Stream,
        *,
        state: Mapping[str, Any],
        client: Address = None,
        server: Address = None,
    ) -> None:
        self._app, self._stream, self._state = app, stream, state
        self._client, self._server = client, server
        self._closing: trio.Event = state["closing"]
        self._scope = trio.CancelScope()
        self.idle_since = inf
        """When it began to wait for a request; infinite while one is under way. ``idle`` ends it after a while."""
        self.buffer = bytearray()

    async def run(self) -> None:
        """Serve until either side ends it. The stream is the caller's to close."""
        with self._scope:
            try:
                while (request := await self._next_request()) is not None:
                    if not await self._serve(request):
                        return
            except RequestError as exc:
                await self.send(plain_answer(exc.code, exc.message))

    def stop(self) -> None:
        """End it at once if no request is under way; else, where the server ends, its answer is the last."""
        if self.idle_since < inf:
            self._scope.cancel()

    @property
    def waits_since(self) -> float:
        """When it began to wait for its client, to ask or to take a piece of an answer; infinite while it does not."""
        return self.idle_since if self.idle_since < inf else self._scope.deadline - STALL_SECONDS

    # ---- bytes -------------------------------------------------------------------------------------------------------

    async def receive(self) -> bytes:
        """The next bytes; empty when the client is gone."""
        try:
            return await self._stream.receive_some()
        except _GONE:
            return b""

    async def send(self, data: bytes, *, is_last: bool = False) -> None:
        """Send all of it. A client that is gone or takes nothing for a minute cancels what the connection does.

        Others get a turn, but for the last piece of an answer: they get it before the next request is read.
        """
        try:
            for start in range(0, len(data), _PIECE_BYTES):
                piece = data if len(data) <= _PIECE_BYTES else data[start : start + _PIECE_BYTES]
                if not self._stream.send_now(piece):
                    await self._flush()
        except _GONE:
            self._scope.cancel()
            is_last = False
        if not is_last:
            await trio.lowlevel.checkpoint()

    async def _flush(self) -> None:
        self._allow(STALL_SECONDS)
        await self._stream.flush()
        self._scope.deadline = inf

    def _allow(self, seconds: float) -> None:
        self._scope.deadline = trio.current_time() + seconds

    # ---- requests ----------------------------------------------------------------------------------------------------

    async def _next_request(self) -> Request | None:
        """None when the client has nothing more to ask, or the server stops."""
        buffer, searched = self.buffer, 0
        if self._closing.is_set():
            return None
        if buffer:  # else it waits below
            await trio.lowlevel.checkpoint()
        self.idle_since, is_first = trio.current_time(), True
        while True:
            while buffer.startswith(b"\r\n"):
                del buffer[:2]
            if buffer:
                end = buffer.find(b"\r\n\r\n", searched)
                if 0 <= end <= MAX_HEAD_BYTES - 4:
                    head = bytes(buffer[: end + 4])
                    del buffer[: end + 4]
                    if not is_first:
                        self._scope.deadline = inf
                    self.idle_since = inf
                    return parse_request(head)
                if len(buffer) >= MAX_HEAD_BYTES:
                    raise RequestError(431, f"the head of a request is larger than {MAX_HEAD_BYTES} bytes")
                searched = max(0, len(buffer) - 3)
                if is_first:
                    is_first = False
                    self._allow(HEAD_SECONDS)
            data = await self.receive()
            if not data:
                return None
            buffer += data

    async def _serve(self, request: Request) -> bool:
        """Answer one request; whether another may follow."""
        if request.upgrade == b"websocket":
            await self._serve_websocket(request)
            return False
        cycle = _Cycle(self, request, self._closing)
        try:
            await self._app(self._asgi_scope(request), cycle.receive, cycle.send)
        except Exception:
            log.exception("the application failed", method=request.method, path=request.path)
        return await cycle.finish()

    async def _serve_websocket(self, request: Request) -> None:
        # An idle node does without hypercorn. It takes 0.15 s to import, once, while others have to be served.
        await in_thread(import_module, "nanocloud.apiserver.upgrades")
        from nanocloud.apiserver.upgrades import serve_websocket

        await serve_websocket(self, self._app, request, state=self._state, client=self._client, server=self._server)

    def _asgi_scope(self, request: Request) -> MutableMapping[str, Any]:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1" if request.minor else "1.0",
            "method": request.method,
            "scheme": "https",
            "path": request.path,
            "raw_path": request.raw_path,
            "query_string": request.query,
            "root_path": "",
            "headers": request.pairs,
            "client": self._client,
            "server": self._server,
            "state": dict(self._state),
        }


class _Cycle:
    """One request and its answer, as the application sees them."""

    def __init__(self, connection: Connection, request: Request, closing: trio.Event) -> None:
        self._connection, self._closing = connection, closing
        self._body = request.body
        self._awaits_continue = request.expects_continue and self._body is not None
        self._answer = Answer(request.method, request.minor)
        self._closes = request.closes
        self._is_read = False  # the application has had the end of the body
        self._is_gone = False

    async def receive(self) -> dict[str, Any]:
        if not self._is_read and not self._is_gone:
            piece = await self._next_piece()
            if not self._is_gone:
                return {"type": "http.request", "body": piece, "more_body": not self._is_read}
        await self._until_gone()
        return {"type": "http.disconnect"}

    async def _next_piece(self) -> bytes:
        body, buffer = self._body, self._connection.buffer
        if body is None:
            self._is_read = True
            return b""
        while True:
            try:
                piece = body.take(buffer)
            except RequestError as exc:
                await self._refuse(exc)
                return b""
            self._is_read = body.is_complete
            if piece or self._is_read:
                return piece
            if self._awaits_continue and not self._answer.is_begun:
                self._awaits_continue = False
                await self._connection.send(CONTINUE)
            await self._read_more()
            if self._is_gone:
                return b""

    async def _refuse(self, exc: RequestError) -> None:
        """A body that is framed wrongly: nothing after it can be understood. The application sees a client leave."""
        self._is_gone = self._closes = True
        if not self._answer.is_started:
            self._answer.is_started = self._answer.is_complete = True
            await self._connection.send(plain_answer(exc.code, exc.message))

    async def _until_gone(self) -> None:
        """Wait for the client to leave. What it sends meanwhile is the next request, and waits in the buffer."""
        while not self._is_gone and not self._answer.is_complete:
            if len(self._connection.buffer) > _FAR_AHEAD_BYTES:
                await trio.sleep_forever()  # so far ahead, it is there
            await self._read_more()

    async def _read_more(self) -> None:
        data = await self._connection.receive()
        if not data:
            self._is_gone = True
        self._connection.buffer += data

    async def send(self, message: Mapping[str, Any]) -> None:
        if self._is_gone and self._answer.is_complete:
            return  # it was answered in the application's stead
        if not self._answer.is_started:
            self._answer.closes = self._closes = self._closes or self._closing.is_set() or not self._has_whole_body()
        data = self._answer.encode(message)
        self._closes = self._closes or self._answer.closes
        if data:
            try:
                await self._connection.send(data, is_last=self._answer.is_complete)
            except BaseException:
                self._closes = True  # cancelled: of these bytes any part may have gone, and no other answer may follow
                raise

    def _has_whole_body(self) -> bool:
        """Whether nothing of this request can be mistaken for the next; what the application left is dropped."""
        if self._body is None or self._is_read:
            return True
        try:
            while self._body.take(self._connection.buffer):
                pass
        except RequestError:
            return False
        return self._body.is_complete

    async def finish(self) -> bool:
        """The application has returned; whether the connection is good for another request."""
        if not self._answer.is_started and not self._is_gone:
            await self._connection.send(plain_answer(500, "the server failed to answer; its log says more"))
            return False
        return self._answer.is_complete and not self._closes and not self._is_gone
