"""The TLS socket of the API: its accept loop, a bound on connections, and a stop that ends watches before it waits.

``scope["state"]["tls"]["der"]`` is the client's certificate, or None. ``scope["state"]["closing"]`` is a ``trio.Event``
that is set when the server stops; streams end themselves then. A handshake that fails tells the client why.
"""

from __future__ import annotations

import resource
import ssl
from typing import TYPE_CHECKING

import structlog
import trio

from nanocloud.apiserver.connection import Connection
from nanocloud.apiserver.tls import TlsStream
from nanocloud.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp

log = structlog.get_logger(__name__)

MAX_CONNECTIONS = 1024
GRACE_SECONDS = 10.0
_HANDSHAKE_SECONDS = 10.0
_FAREWELL_SECONDS = 2.0


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
        listeners = await trio.open_tcp_listeners(port, host=host)
    except OSError as exc:
        raise ConfigError(f"the API server cannot listen on {listen}: {exc.strerror or exc}") from exc
    connections = _Connections(app, ssl_context)
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


def _address(listener: trio.SocketListener) -> tuple[str, int]:
    host, port, *_ = listener.socket.getsockname()
    return host, port


def _most_connections() -> int:
    """At most half of the descriptors that the process may have: whoever connects, a node can start containers."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if descriptors == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, descriptors // 2)


class _Connections:
    """All that are open."""

    def __init__(self, app: ASGIApp, ssl_context: ssl.SSLContext) -> None:
        self._app, self._ssl_context = app, ssl_context
        self._open: set[Connection] = set()
        self._limiter = trio.CapacityLimiter(_most_connections())
        self.closing = trio.Event()

    def stop(self) -> None:
        self.closing.set()
        for connection in self._open:
            connection.stop()

    async def handle(self, accepted: trio.SocketStream) -> None:
        with accepted.socket:
            try:
                self._limiter.acquire_on_behalf_of_nowait(accepted)
            except trio.WouldBlock:
                return
            try:
                stream = TlsStream(accepted.socket, self._ssl_context)
                await self._serve(stream)
                await _end(stream)
            except Exception:
                log.exception("connection failed")  # one connection's trouble is not the server's
            finally:
                self._limiter.release_on_behalf_of(accepted)

    async def _serve(self, stream: TlsStream) -> None:
        try:
            client, server = stream.socket.getpeername()[:2], stream.socket.getsockname()[:2]
            with trio.fail_after(_HANDSHAKE_SECONDS):
                await stream.shake_hands()
        except (OSError, trio.BrokenResourceError, trio.TooSlowError):
            return
        state = {"closing": self.closing, "tls": {"der": stream.peer_certificate}}
        connection = Connection(self._app, stream, state=state, client=client, server=server)
        self._open.add(connection)
        try:
            await connection.run()
        finally:
            self._open.discard(connection)


async def _end(stream: TlsStream) -> None:
    """Say that nothing more comes, and let pass what is still on the way: closing over it would reset the connection,
    and the client could lose the last answer, or the alert that says why there is none."""
    with trio.move_on_after(_FAREWELL_SECONDS):
        try:
            await stream.send_eof()
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass
