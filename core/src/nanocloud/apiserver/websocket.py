"""WebSockets of the API server: from the upgrade of an HTTP/1.1 connection to its end, as an ASGI application sees it.

wsproto does the framing. No extension is offered: what is carried is small or does not compress, and a compressed
frame could be far larger than it looks. Source: RFC 6455; ASGI, "WebSocket" and "Websocket Denial Response".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import structlog
import trio
from wsproto.connection import Connection as Framing
from wsproto.connection import ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Message, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, RemoteProtocolError, generate_accept_token

from nanocloud.apiserver.http_answers import Answer, plain_answer, switch_answer
from nanocloud.apiserver.http_requests import Head, RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from starlette.types import ASGIApp

log = structlog.get_logger(__name__)

MAX_MESSAGE_BYTES = 1024 * 1024
_CLOSE_SECONDS = 2.0


class Wire(Protocol):
    """The connection below."""

    buffer: bytearray

    async def receive(self) -> bytes: ...

    async def send(self, data: bytes) -> None: ...


def is_websocket(head: Head) -> bool:
    return head.fields.upgrade == b"websocket"


async def serve_websocket(wire: Wire, app: ASGIApp, head: Head, scope: MutableMapping[str, Any]) -> None:
    """Serve one WebSocket to its end; the connection is good for nothing afterwards.

    Raises:
        RequestError: the upgrade is not one of RFC 6455.
    """
    fields = dict(head.fields.pairs)
    key = fields.get(b"sec-websocket-key", b"")
    if head.method != "GET" or head.fields.length != 0 or len(key) != 24:
        raise RequestError(400, "a WebSocket is asked for with GET, a key and no body")
    if fields.get(b"sec-websocket-version") != b"13":
        raise RequestError(400, "the only version of WebSocket that is served is 13")
    protocols = fields.get(b"sec-websocket-protocol", b"").decode("latin-1")
    scope["subprotocols"] = [name for part in protocols.split(",") if (name := part.strip())]
    scope["extensions"] = {"websocket.http.response": {}}
    session = _Session(wire, key, scope["subprotocols"])
    try:
        await app(scope, session.receive, session.send)
    except Exception:
        log.exception("the application failed", path=scope["path"])
    await session.finish()


class _Session:
    def __init__(self, wire: Wire, key: bytes, offered: list[str]) -> None:
        self._wire, self._key, self._offered = wire, key, offered
        self._framing: Framing | None = None  # once accepted
        self._refusal = Answer("GET", 1, messages="websocket.http.response")
        self._refusal.closes = True
        self._is_connecting = True
        self._messages: list[dict[str, Any]] = []
        self._parts: list[Any] = []
        self._size = 0
        self._disconnected: int | None = None
        self._sending = trio.Lock()

    async def receive(self) -> dict[str, Any]:
        if self._is_connecting:
            self._is_connecting = False
            return {"type": "websocket.connect"}
        while not self._messages and self._disconnected is None:
            data = bytes(self._wire.buffer) or await self._wire.receive()
            self._wire.buffer.clear()
            await self._take(data)
        if self._messages:
            return self._messages.pop(0)
        return {"type": "websocket.disconnect", "code": self._disconnected}

    async def _take(self, data: bytes) -> None:
        if not data or self._framing is None:  # gone, or bytes before they were allowed
            self._disconnected = CloseReason.ABNORMAL_CLOSURE
            return
        try:
            self._framing.receive_data(data)
            for event in self._framing.events():
                await self._handle(event)
                if self._disconnected is not None:
                    break
        except RemoteProtocolError as exc:
            code = exc.event_hint.code if isinstance(exc.event_hint, CloseConnection) else CloseReason.PROTOCOL_ERROR
            await self._close(int(code))
            self._disconnected = int(code)

    async def _handle(self, event: Event) -> None:
        if isinstance(event, Message):
            self._parts.append(event.data)
            self._size += len(event.data)
            if self._size > MAX_MESSAGE_BYTES:
                await self._close(CloseReason.MESSAGE_TOO_BIG)
                self._disconnected = CloseReason.MESSAGE_TOO_BIG
            elif event.message_finished:
                self._messages.append(self._message(isinstance(event, TextMessage)))
        elif isinstance(event, Ping):
            await self._send_event(event.response())
        elif isinstance(event, CloseConnection):
            await self._send_event(event.response())
            self._disconnected = event.code or CloseReason.NO_STATUS_RCVD

    def _message(self, is_text: bool) -> dict[str, Any]:
        parts, self._parts, self._size = self._parts, [], 0
        if is_text:
            return {"type": "websocket.receive", "text": "".join(parts), "bytes": None}
        return {"type": "websocket.receive", "bytes": b"".join(parts), "text": None}

    async def send(self, message: Mapping[str, Any]) -> None:
        kind: str = message["type"]
        if kind == "websocket.send" and self._framing is not None:
            data = message.get("bytes")
            event = TextMessage(data=message["text"]) if data is None else BytesMessage(data=bytes(data))
            await self._send_event(event)
        elif kind == "websocket.accept" and self._can_answer:
            await self._accept(message)
        elif kind.startswith("websocket.http.response.") and self._framing is None:
            if data := self._refusal.encode(message):
                await self._wire.send(data)
        elif kind == "websocket.close" and self._framing is not None:
            await self._close(int(message.get("code", CloseReason.NORMAL_CLOSURE)), message.get("reason"))
        elif kind == "websocket.close" and self._can_answer:
            await self._refuse(403, "the server does not allow this")
        else:
            raise RuntimeError(f"unexpected message {kind!r} of the application")

    @property
    def _can_answer(self) -> bool:
        return self._framing is None and not self._refusal.is_begun

    async def _accept(self, message: Mapping[str, Any]) -> None:
        headers = [
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-accept", generate_accept_token(self._key)),
            *message.get("headers", ()),
        ]
        if (chosen := message.get("subprotocol")) is not None:
            if chosen not in self._offered:
                raise RuntimeError(f"the client did not offer the subprotocol {chosen!r}")
            headers.append((b"sec-websocket-protocol", chosen.encode()))
        self._framing = Framing(ConnectionType.SERVER)
        await self._wire.send(switch_answer(headers))

    async def _refuse(self, status: int, why: str) -> None:
        self._refusal.is_started = self._refusal.is_complete = True
        await self._wire.send(plain_answer(status, why))

    async def _close(self, code: int, reason: str | None = None) -> None:
        await self._send_event(CloseConnection(code=code, reason=reason))

    async def _send_event(self, event: Event) -> None:
        assert self._framing is not None
        async with self._sending:  # answers to pings come from the task that receives
            try:
                data = self._framing.send(event)
            except LocalProtocolError:
                return  # closed meanwhile
            await self._wire.send(data)

    async def finish(self) -> None:
        """The application has returned: answer what it left open, and see the closing handshake through."""
        if self._framing is None:
            if not self._refusal.is_started:
                await self._refuse(500, "the server failed to answer; its log says more")
            return
        if self._framing.state is ConnectionState.OPEN and self._disconnected is None:
            await self._close(CloseReason.INTERNAL_ERROR)
        with trio.move_on_after(_CLOSE_SECONDS):
            while self._disconnected is None:
                self._messages.clear()
                await self._take(bytes(self._wire.buffer) or await self._wire.receive())
                self._wire.buffer.clear()
