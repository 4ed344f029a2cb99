"""WebSockets of the API server: hypercorn's, on a connection whose first request asks for one.

hypercorn is given bytes and gives bytes, and this module stands where its server would: it runs the application, reads
and writes. Its server does that too, but a connection hangs there for good if its application returns with messages
left that nobody reads, or if its client sends something before it is answered.

It is imported when a WebSocket is first asked for, for hypercorn takes 5 MB of memory and 0.17 s of processor, once.
Source: RFC 6455; ASGI, "WebSocket" and "Websocket Denial Response".
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, cast

import structlog
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from nanocloud.apiserver.http_requests import Request, RequestError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from hypercorn.typing import ASGIReceiveEvent
    from starlette.types import ASGIApp

log = structlog.get_logger(__name__)

MAX_MESSAGE_BYTES = 1024 * 1024
ASK_SECONDS = 30.0
"""Between two pings."""
_QUEUED_MESSAGES = 10
_PING = b"\x89\x00"  # RFC 6455, section 5.5.2: whole, without content, not masked
_WRITTEN_HERE = (b"connection", b"upgrade", b"sec-websocket-extensions")


class Wire(Protocol):
    """The connection below."""

    buffer: bytearray

    async def receive(self) -> bytes: ...

    async def send(self, data: bytes) -> None: ...


async def serve_websocket(
    wire: Wire,
    app: ASGIApp,
    request: Request,
    *,
    state: Mapping[str, Any],
    client: tuple[str, int] | None,
    server: tuple[str, int] | None,
) -> None:
    """Serve one WebSocket to its end; the connection is good for nothing afterwards.

    Raises:
        RequestError: the upgrade is not one of RFC 6455.
    """
    fields = [(name, value) for name, value in request.pairs if name.startswith(b"sec-websocket-")]
    if request.method != "GET" or [len(value) for name, value in fields if name == b"sec-websocket-key"] != [24]:
        raise RequestError(400, "a WebSocket is asked for with GET and one key")
    if not all(value.isascii() for _, value in fields):
        raise RequestError(400, "a WebSocket is asked for in ASCII")
    applications = _Applications()
    async with applications:
        session = _Session(wire)
        protocol = H11Protocol(
            cast("Any", app),
            _config(),
            WorkerContext(None),
            applications,
            ConnectionState(dict(state)),
            True,
            client,
            server,
            session.send,
        )
        await protocol.handle(RawData(_head_of(request)))
        if applications.is_running:
            await session.read(protocol)
        await protocol.handle(Closed())


def _config() -> Config:
    config = Config()
    config.errorlog = None  # what applications raise is logged here
    config.include_server_header = False
    config.max_app_queue_size = _QUEUED_MESSAGES
    config.websocket_max_message_size = MAX_MESSAGE_BYTES
    return config


def _head_of(request: Request) -> bytes:
    """The request in one form, whatever its client wrote, for it is parsed once more.

    No extension is asked for: what is carried is small or does not compress, and a compressed frame could be far
    larger than it looks, which hypercorn would find out when it has inflated it.
    """
    target = request.raw_path + (b"?" + request.query if request.query else b"")
    pairs = [pair for pair in request.pairs if pair[0] not in _WRITTEN_HERE]
    pairs += [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
    fields = b"".join(b"%b: %b\r\n" % pair for pair in pairs)
    return b"GET %b HTTP/1.1\r\n%b\r\n" % (target, fields)


class _Session:
    """The bytes of one WebSocket."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._sending = trio.Lock()
        self._reading = trio.CancelScope()
        self._accepted = trio.Event()

    async def read(self, protocol: H11Protocol) -> None:
        """Give hypercorn what comes until either side ends it. What comes early waits."""
        with self._reading:
            await self._accepted.wait()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._ask)
                await self._read(protocol)
                nursery.cancel_scope.cancel()

    async def _read(self, protocol: H11Protocol) -> None:
        while data := bytes(self._wire.buffer) or await self._wire.receive():
            self._wire.buffer.clear()
            await protocol.handle(RawData(data))
            stream = protocol.stream
            if isinstance(stream, WSStream) and stream.buffer.length > MAX_MESSAGE_BYTES:
                return  # the client has been told, and more of the message would be kept

    async def _ask(self) -> None:
        """Whether the client is there: while its messages wait for an application that takes none, as a process that
        does not read its input, nothing is read, and that it left is seen by writing to it."""
        while True:
            await trio.sleep(ASK_SECONDS)
            async with self._sending:
                await self._wire.send(_PING)

    async def send(self, event: Event) -> None:
        if isinstance(event, RawData):
            async with self._sending:  # answers to pings come from the task that reads
                await self._wire.send(event.data)
            if event.data.startswith(b"HTTP/1.1 101 "):
                self._accepted.set()
        elif isinstance(event, Closed):
            self._reading.cancel()


class _Applications(TaskGroup):
    """Runs applications as hypercorn's own does, but one that has returned can be sent more: it is dropped."""

    is_running = False

    async def spawn_app(
        self, app: Any, config: Config, scope: Any, send: Callable[[Any], Awaitable[None]]
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        putting, taking = trio.open_memory_channel["ASGIReceiveEvent"](config.max_app_queue_size)

        async def run() -> None:
            async with taking:
                try:
                    await app(scope, taking.receive, send)
                except Exception:
                    log.exception("the application failed", path=scope["path"])
            await send(None)

        async def put(message: ASGIReceiveEvent) -> None:
            with suppress(trio.BrokenResourceError):
                await putting.send(message)

        self.is_running = True
        self.spawn(run)
        return put
