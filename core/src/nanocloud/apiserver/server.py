"""The TLS socket of the API: its accept loop, a bound on connections, and a stop that ends watches before it waits.

``scope["state"]["tls"]["der"]`` is the client's certificate, or None. ``scope["state"]["closing"]`` is a ``trio.Event``
that is set when the server stops; streams end themselves then. A handshake that fails tells the client why.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import structlog
import trio

from nanocloud.apiserver.connection import Connection
from nanocloud.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp

log = structlog.get_logger(__name__)

MAX_CONNECTIONS = 1024
GRACE_SECONDS = 10.0
_HANDSHAKE_SECONDS = 10.0
_FAREWELL_SECONDS = 1.0


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
    connections = _Connections(app)
    async with trio.open_nursery() as nursery:
        handlers = await nursery.start(_hold_connections, connections.closing)
        try:
            task_status.started([_address(listener) for listener in listeners])
            await trio.serve_listeners(connections.handle, listeners, handler_nursery=handlers)
        finally:
            connections.stop()


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


class _Connections:
    """All that are open."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open: set[Connection] = set()
        self._limiter = trio.CapacityLimiter(MAX_CONNECTIONS)
        self.closing = trio.Event()

    def stop(self) -> None:
        self.closing.set()
        for connection in self._open:
            connection.stop()

    async def handle(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            self._limiter.acquire_on_behalf_of_nowait(stream)
        except trio.WouldBlock:
            await trio.aclose_forcefully(stream)
            return
        try:
            if await _shake_hands(stream):
                await self._serve(stream)
                with trio.move_on_after(_FAREWELL_SECONDS):
                    await stream.aclose()
        except Exception:
            log.exception("connection failed")  # one connection's trouble is not the server's
        finally:
            self._limiter.release_on_behalf_of(stream)
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)

    async def _serve(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        socket = stream.transport_stream.socket
        try:
            client, server = socket.getpeername()[:2], socket.getsockname()[:2]
        except OSError:
            return  # it is gone already
        state = {"closing": self.closing, "tls": {"der": stream.getpeercert(binary_form=True)}}
        connection = Connection(self._app, stream, state=state, client=client, server=server)
        self._open.add(connection)
        try:
            await connection.run()
        finally:
            self._open.discard(connection)


async def _shake_hands(stream: trio.SSLStream[trio.SocketStream]) -> bool:
    try:
        with trio.fail_after(_HANDSHAKE_SECONDS):
            await stream.do_handshake()
    except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
        await _flush_alert(stream)
        return False
    return True


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
