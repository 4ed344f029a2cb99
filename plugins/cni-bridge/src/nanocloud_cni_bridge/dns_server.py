"""The name server on the bridge's addresses: our names from the zone, all others from the node's resolvers.

It answers nobody outside the sandboxes' subnets, so it cannot be used to flood a third party. What is waiting for
upstream is bounded, in total and for each asker, so one sandbox cannot keep the others from resolving.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections import Counter
from contextlib import contextmanager
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TYPE_CHECKING

import trio

from nanocloud.errors import ProviderError
from nanocloud_cni_bridge import dns_message, hostports
from nanocloud_cni_bridge.dns_upstream import Upstream, read_message

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nanocloud.providers.network import IPAddress
    from nanocloud_cni_bridge.dns_message import Query
    from nanocloud_cni_bridge.dns_zone import Zone

log = logging.getLogger(__name__)

MAX_WAITING = 1024
MAX_WAITING_EACH = 128
MAX_CONNECTIONS = 128
MAX_CONNECTIONS_EACH = 16
IDLE_SECONDS = 10.0
_BACKLOG = 64


class Quota:
    """Counts what is going on, in total and by asker."""

    def __init__(self, total: int, each: int) -> None:
        self._total, self._each = total, each
        self._counts: Counter[str] = Counter()

    def take(self, asker: str) -> bool:
        if self._counts.total() >= self._total or self._counts[asker] >= self._each:
            return False
        self._counts[asker] += 1
        return True

    def give_back(self, asker: str) -> None:
        self._counts[asker] -= 1
        if not self._counts[asker]:
            del self._counts[asker]


class DnsServer:
    """``bind`` first, then ``serve`` until cancelled. ``zone`` may be changed at any time."""

    def __init__(self, zone: Zone, upstream: Upstream, networks: Sequence[IPv4Network | IPv6Network]) -> None:
        self.zone = zone
        self._upstream, self._networks = upstream, tuple(networks)
        self._waiting = Quota(MAX_WAITING, MAX_WAITING_EACH)
        self._connections = Quota(MAX_CONNECTIONS, MAX_CONNECTIONS_EACH)
        self._udp: list[trio.socket.SocketType] = []
        self._tcp: list[trio.socket.SocketType] = []

    @contextmanager
    def bind(self, addresses: Sequence[IPAddress], port: int = hostports.DNS_PORT) -> Iterator[None]:
        """Hold the sockets while the body runs.

        Raises:
            ProviderError: another program holds one; names it.
        """
        try:
            for address in addresses:
                self._udp.append(_bound(address, port, socket.SOCK_DGRAM))
                self._tcp.append(_bound(address, port, socket.SOCK_STREAM))
                self._tcp[-1].listen(_BACKLOG)
            yield
        finally:
            for sock in self._udp + self._tcp:
                sock.close()
            self._udp, self._tcp = [], []

    async def serve(self) -> None:
        async with trio.open_nursery() as nursery:
            for sock in self._udp:
                nursery.start_soon(self._serve_udp, sock, nursery)
            for sock in self._tcp:
                nursery.start_soon(self._serve_tcp, sock, nursery)

    async def _serve_udp(self, sock: trio.socket.SocketType, nursery: trio.Nursery) -> None:
        while True:
            try:
                packet, peer = await sock.recvfrom(dns_message.MAX_QUERY_BYTES + 1)
            except OSError as exc:  # an earlier reply bounced, or the bridge is being mended
                log.debug("name server: %s", exc)
                continue
            if not self._serves(peer[0]):
                continue
            parsed = self._local(packet)
            if isinstance(parsed, bytes):
                await _send(sock, parsed, peer)
            elif parsed is not None and self._waiting.take(peer[0]):
                nursery.start_soon(self._forward_udp, sock, peer, packet, parsed)

    async def _forward_udp(
        self, sock: trio.socket.SocketType, peer: tuple[str, int], packet: bytes, query: Query
    ) -> None:
        try:
            reply = await self._upstream.ask(packet, query, over_tcp=False)
        finally:
            self._waiting.give_back(peer[0])
        if reply is None:
            reply = dns_message.reply(query, code=dns_message.SERVFAIL)
        elif len(reply) > query.udp_bytes:
            reply = dns_message.truncated(query)
        await _send(sock, reply, peer)

    async def _serve_tcp(self, sock: trio.socket.SocketType, nursery: trio.Nursery) -> None:
        while True:
            try:
                connection, peer = await sock.accept()
            except OSError as exc:
                # Out of descriptors, most likely: without a pause this would spin until one is free.
                log.warning("name server cannot accept a connection: %s", exc)
                await trio.sleep(0.1)
                continue
            if self._serves(peer[0]) and self._connections.take(peer[0]):
                nursery.start_soon(self._converse, trio.SocketStream(connection), peer[0])
            else:
                connection.close()

    async def _converse(self, stream: trio.SocketStream, asker: str) -> None:
        """Answer the questions of one connection in turn. RFC 7766."""
        try:
            async with stream:
                while True:
                    with trio.fail_after(IDLE_SECONDS):
                        packet = await read_message(stream, dns_message.MAX_QUERY_BYTES)
                        reply = None if packet is None else await self._answer_tcp(packet, asker)
                        if reply is None:
                            return
                        await stream.send_all(len(reply).to_bytes(2, "big") + reply)
        except (OSError, trio.BrokenResourceError, trio.TooSlowError) as exc:
            log.debug("name server: connection of %s: %r", asker, exc)
        finally:
            self._connections.give_back(asker)

    async def _answer_tcp(self, packet: bytes, asker: str) -> bytes | None:
        parsed = self._local(packet, over_tcp=True)
        if not isinstance(parsed, dns_message.Query):
            return parsed
        reply = None
        if self._waiting.take(asker):
            try:
                reply = await self._upstream.ask(packet, parsed, over_tcp=True)
            finally:
                self._waiting.give_back(asker)
        return reply or dns_message.reply(parsed, code=dns_message.SERVFAIL)

    def _local(self, packet: bytes, *, over_tcp: bool = False) -> bytes | Query | None:
        """The reply where we know it; the query where upstream must be asked; None for what is not answered."""
        try:
            query = dns_message.parse_query(packet)
        except dns_message.MalformedError:
            return None
        except dns_message.RefusedQueryError as refusal:
            return refusal.reply
        answer = self.zone.lookup(query)
        if answer is None:
            return query
        return dns_message.reply(query, code=answer.code, answers=answer.records, zone=answer.zone, over_tcp=over_tcp)

    def _serves(self, peer: str) -> bool:
        address = ip_address(peer)
        return any(address in network for network in self._networks)


async def _send(sock: trio.socket.SocketType, packet: bytes, peer: tuple[str, int]) -> None:
    try:
        await sock.sendto(packet, peer)
    except OSError as exc:  # the asker is gone
        log.debug("name server: reply to %s: %s", peer[0], exc)


def _bound(address: IPAddress, port: int, kind: socket.SocketKind) -> trio.socket.SocketType:
    sock = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, kind | socket.SOCK_CLOEXEC)
    try:
        if kind == socket.SOCK_STREAM:  # connections of an earlier run may still be dying
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((str(address), port))
    except OSError as exc:
        sock.close()
        protocol = "tcp" if kind == socket.SOCK_STREAM else "udp"
        where = f"{address} port {port}/{protocol}"
        if exc.errno != errno.EADDRINUSE:
            raise ProviderError(f"the name server cannot listen on {where}: {exc}") from exc
        claim = hostports.Claim(protocol=protocol, port=port, family=address.version, ip=address)
        raise ProviderError(
            f"the name server cannot listen on {where}: {hostports.holder(claim) or 'something'} holds it",
            hint="let that program listen on its own addresses only",
        ) from None
    return trio.socket.from_stdlib_socket(sock)
