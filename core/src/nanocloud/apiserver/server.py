"""The TLS socket of the API: its accept loop, a bound on connections, and a stop that ends watches before it waits.

``scope["state"]["tls"]["der"]`` is the client's certificate, or None. ``scope["state"]["closing"]`` is a ``trio.Event``
that is set when the server stops; streams end themselves then. A handshake that fails tells the client why.
"""

from __future__ import annotations

import resource
import socket
import ssl
from math import inf
from typing import TYPE_CHECKING

import attrs
import structlog
import trio

from nanocloud.apiserver.connection import Connection
from nanocloud.apiserver.idle import OpenConnections
from nanocloud.apiserver.tls import TlsStream
from nanocloud.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp
    from trio.socket import SocketType

log = structlog.get_logger(__name__)

MAX_CONNECTIONS = 1024
GRACE_SECONDS = 10.0
_HANDSHAKE_SECONDS = 10.0
_FAREWELL_SECONDS = 2.0
_SILENT_SECONDS = 60


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
    for listener in listeners:
        _notice_the_vanished(listener.socket)
    connections = _Connections(app, ssl_context)
    async with trio.open_nursery() as nursery:
        handlers = await nursery.start(_hold_connections, connections.closing)
        nursery.start_soon(connections.open.end_idle)
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


def _notice_the_vanished(listening: SocketType) -> None:
    """Have the kernel ask every client that is silent whether it is there: of a machine that went without a word, a
    connection on which nothing is sent, as of an exec session, would never end. Connections take this from where they
    are accepted."""
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _SILENT_SECONDS)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _SILENT_SECONDS // 3)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


def _address(listener: trio.SocketListener) -> tuple[str, int]:
    host, port, *_ = listener.socket.getsockname()
    return host, port


def _most_connections() -> int:
    """At most half of the descriptors that the process may have: whoever connects, a node can start containers."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if descriptors == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, descriptors // 2)


@attrs.define(eq=False)
class _Visit:
    """A connection from its first byte to its last."""

    scope: trio.CancelScope
    began: float
    handshake: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    connection: Connection | None = None
    """Between the handshake and the farewell."""

    @property
    def waits_since(self) -> float:
        """When it began to wait for its client; infinite while it does not."""
        return self.began if self.connection is None else self.connection.waits_since


class _Connections:
    """All that are open."""

    def __init__(self, app: ASGIApp, ssl_context: ssl.SSLContext) -> None:
        self._app, self._ssl_context = app, ssl_context
        self.open = OpenConnections()
        self._visits: set[_Visit] = set()
        self._most = _most_connections()
        self.closing = trio.Event()

    def stop(self) -> None:
        self.closing.set()
        for visit in self._visits:
            visit.handshake.cancel()
        self.open.stop()

    async def handle(self, accepted: trio.SocketStream) -> None:
        with accepted.socket, trio.CancelScope() as scope:
            if self.closing.is_set() or (len(self._visits) >= self._most and not self._make_room()):
                return
            visit = _Visit(scope, trio.current_time())
            self._visits.add(visit)
            try:
                stream = TlsStream(accepted.socket, self._ssl_context)
                await self._serve(stream, visit)
                await _end(stream)
            except Exception:
                log.exception("connection failed")  # one connection's trouble is not the server's
            finally:
                self._visits.discard(visit)

    def _make_room(self) -> bool:
        """Send away the client that has asked for nothing, or taken nothing of an answer, the longest: strangers who
        only hold connections keep nobody out. False where there is none."""
        longest = min(self._visits, key=lambda visit: visit.waits_since)
        if longest.waits_since == inf:
            return False
        self._visits.discard(longest)
        longest.scope.cancel()
        return True

    async def _serve(self, stream: TlsStream, visit: _Visit) -> None:
        try:
            client, server = stream.socket.getpeername()[:2], stream.socket.getsockname()[:2]
            visit.handshake.deadline = trio.current_time() + _HANDSHAKE_SECONDS
            with visit.handshake:
                await stream.shake_hands()
        except (OSError, trio.BrokenResourceError):
            return
        if visit.handshake.cancelled_caught:
            return
        state = {"closing": self.closing, "tls": {"der": stream.peer_certificate}}
        visit.connection = Connection(self._app, stream, state=state, client=client, server=server)
        try:
            with self.open.holding(visit.connection):
                await visit.connection.run()
        finally:
            visit.connection = None


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
