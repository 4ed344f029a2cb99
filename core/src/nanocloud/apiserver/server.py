"""The TLS socket of the API: hypercorn's HTTP under our own accept loop.

What hypercorn lacks and this adds: the client's certificate in ``scope["state"]["tls"]["der"]``, the TLS alert that
tells a client why its handshake failed, a bound on connections, and a stop that ends watches before it waits.
``scope["state"]["closing"]`` is a ``trio.Event`` that is set when the server stops; streams end themselves then.
"""

from __future__ import annotations

import logging
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import structlog
import trio
from hypercorn.config import Config
from hypercorn.events import Event, Updated
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app

from nanocloud.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp

log = structlog.get_logger(__name__)

MAX_CONNECTIONS = 1024
GRACE_SECONDS = 10.0
_HANDSHAKE_SECONDS = 10.0
_IDLE_SECONDS = 120.0
_HEADERS_LIMIT_BYTES = 64 * 1024


async def serve(
    app: ASGIApp,
    *,
    listen: str,
    ssl_context: ssl.SSLContext,
    task_status: trio.TaskStatus[Sequence[tuple[str, int]]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled, then end streams and give requests that run ten seconds to finish.

    Args:
        listen: ``host:port``, ``[v6]:port``; port 0 chooses one.
        ssl_context: with the server's certificate; a new one may be loaded into it while it serves.

    ``task_status`` gets the addresses once they are bound.

    Raises:
        ConfigError: the address cannot be read or bound.
    """
    host, port = parse_listen(listen)
    # WebSockets need HTTP/1.1, and one protocol for everything keeps flow control simple.
    ssl_context.set_alpn_protocols(["http/1.1"])
    try:
        listeners = await trio.open_ssl_over_tcp_listeners(port, ssl_context, host=host, https_compatible=True)
    except OSError as exc:
        raise ConfigError(f"the API server cannot listen on {listen}: {exc.strerror or exc}") from exc
    context, closing = WorkerContext(None), trio.Event()
    handler = partial(_handle, app, _config(), context, closing, trio.CapacityLimiter(MAX_CONNECTIONS))
    async with trio.open_nursery() as nursery:
        connections = await nursery.start(_hold_connections, closing)
        try:
            task_status.started([_address(listener) for listener in listeners])
            await trio.serve_listeners(handler, listeners, handler_nursery=connections)
        finally:
            closing.set()
            await context.terminated.set()  # idle connections watch this one; it has no checkpoint


async def _hold_connections(
    closing: trio.Event, *, task_status: trio.TaskStatus[trio.Nursery] = trio.TASK_STATUS_IGNORED
) -> None:
    """The nursery of all connections. It outlives the cancellation of the server by the time of grace."""
    with trio.CancelScope(shield=True):
        async with trio.open_nursery() as connections:
            task_status.started(connections)
            await closing.wait()
            connections.cancel_scope.deadline = trio.current_time() + GRACE_SECONDS


def parse_listen(listen: str) -> tuple[str, int]:
    """Raises ConfigError: says how an address is written."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"listen is {listen!r}; it must be host:port, for example 127.0.0.1:6443 or [::]:6443")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _address(listener: trio.SSLListener[trio.SocketStream]) -> tuple[str, int]:
    transport = listener.transport_listener
    assert isinstance(transport, trio.SocketListener)
    host, port, *_ = transport.socket.getsockname()
    return host, port


def _config() -> Config:
    config = Config()
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    config.h11_max_incomplete_size = _HEADERS_LIMIT_BYTES
    config.keep_alive_timeout = _IDLE_SECONDS
    config.keep_alive_max_requests = 1_000_000
    config.ssl_handshake_timeout = _HANDSHAKE_SECONDS
    config.websocket_max_message_size = 1024 * 1024
    return config


async def _handle(
    app: ASGIApp,
    config: Config,
    context: WorkerContext,
    closing: trio.Event,
    limiter: trio.CapacityLimiter,
    stream: trio.SSLStream[trio.SocketStream],
) -> None:
    try:
        limiter.acquire_on_behalf_of_nowait(stream)
    except trio.WouldBlock:
        await trio.aclose_forcefully(stream)
        return
    wrapped = wrap_app(cast("Any", app), 0, "asgi")
    try:
        await _Connection(wrapped, config, context, ConnectionState({"closing": closing}), stream)
    except Exception:
        log.exception("connection failed")  # one connection's trouble is not the server's
    finally:
        limiter.release_on_behalf_of(stream)


class _Connection(TCPServer):
    """One connection; like hypercorn's, and it knows who is at the other end, and that nobody is there any more."""

    _left = False

    async def run(self) -> None:
        try:
            with trio.fail_after(self.config.ssl_handshake_timeout):
                await self.stream.do_handshake()  # hypercorn calls it again, which does nothing
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            await _flush_alert(self.stream)
            return
        certificate: bytes | None = self.stream.getpeercert(binary_form=True)
        state: dict[str, Any] = {**self.state, "tls": {"der": certificate}}
        self.state = ConnectionState(state)
        await super().run()

    async def _read_data(self) -> None:
        await super()._read_data()
        # The client left. hypercorn would keep the connection until its idle time is over, as one of the many that
        # are allowed at a time.
        self._left = True
        await self.idle_task.stop()

    async def protocol_send(self, event: Event) -> None:
        if not (self._left and isinstance(event, Updated)):  # nobody is there to be idle
            await super().protocol_send(event)


async def _flush_alert(stream: trio.SSLStream[trio.SocketStream]) -> None:
    """Send the alert that OpenSSL wrote and trio keeps to itself: without it a client sees a reset, not a reason.

    The same is proposed upstream (trio pull request 3413); until then its private buffer is the only way.
    """
    transport = stream.transport_stream
    with trio.move_on_after(1):
        try:
            if alert := stream._outgoing.read():
                await transport.send_all(alert)
                await transport.send_eof()
                while await transport.receive_some(4096):
                    pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
    await trio.aclose_forcefully(transport)
