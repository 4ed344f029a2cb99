"""Asks the node's resolvers what is not ours, one fresh socket and random id a question.

A connected socket only receives from the resolver's address and port; of what arrives, only a reply with our id and
our question counts. So a forger has to guess both the port and the id. Source: RFC 5452.
"""

from __future__ import annotations

import logging
import secrets
import socket
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from nanocloud_cni_bridge import dns_message

if TYPE_CHECKING:
    from collections.abc import Collection

    from nanocloud.providers.network import IPAddress
    from nanocloud_cni_bridge.dns_message import Query

log = logging.getLogger(__name__)

RESOLV_CONF = Path("/etc/resolv.conf")
ATTEMPT_SECONDS = 1.5
TOTAL_SECONDS = 4.5
"""Below the 5 seconds after which glibc's resolver gives up on us."""
_MAX_RESOLVERS = 3  # as many as glibc reads
_MAX_REPLY_BYTES = 65535


class Resolvers:
    """The resolvers to ask: the configured ones, or the node's, read again whenever its file changes.

    We ask from the node's own network namespace, so a resolver on the node's loopback (systemd-resolved's 127.0.0.53)
    is as good as any; it would not be for a pod. Our own addresses are left out, or a question would go in circles.
    """

    def __init__(self, configured: Collection[str], ours: Collection[IPAddress], file: Path = RESOLV_CONF) -> None:
        self._configured, self._ours, self._file = configured, frozenset(ours), file
        self._stamp: tuple[int, int] | None = None
        self._read: tuple[str, ...] = ()

    def current(self) -> tuple[str, ...]:
        if self._configured:
            return tuple(self._configured)
        try:
            status = self._file.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                self._read, self._stamp = self._parse(self._file.read_text(errors="replace")), stamp
        except OSError as exc:
            if self._stamp != (0, 0):
                log.warning("names of the outside world do not resolve: %s cannot be read: %s", self._file, exc)
            self._read, self._stamp = (), (0, 0)
        return self._read

    def _parse(self, text: str) -> tuple[str, ...]:
        found: list[str] = []
        for line in text.splitlines():
            word, _, rest = line.strip().partition(" ")
            if word != "nameserver" or not rest.split():
                continue
            server = rest.split()[0]
            try:
                address = ip_address(server)
            except ValueError:
                log.warning("%s: nameserver %r is no address", self._file, server[:80])
                continue
            if address not in self._ours and server not in found:
                found.append(server)
        return tuple(found[:_MAX_RESOLVERS])


class Upstream:
    def __init__(self, resolvers: Resolvers, *, port: int = 53) -> None:
        self._resolvers, self._port = resolvers, port
        self._preferred = ""

    async def ask(self, packet: bytes, query: Query, *, over_tcp: bool) -> bytes | None:
        """The reply to ``packet``, with the asker's id; None where no resolver answered in time."""
        servers = self._resolvers.current()
        if self._preferred in servers:  # the one that answered last first
            servers = (self._preferred, *(s for s in servers if s != self._preferred))
        failed: bytes | None = None
        with trio.move_on_after(TOTAL_SECONDS):
            for server in servers:
                reply = await self._ask_one(server, packet, query, over_tcp=over_tcp)
                if reply is None:
                    continue
                reply = dns_message.with_id(reply, query.id)
                if dns_message.code_of(reply) not in (dns_message.SERVFAIL, dns_message.REFUSED):
                    self._preferred = server
                    return reply
                failed = reply
        return failed

    async def _ask_one(self, server: str, packet: bytes, query: Query, *, over_tcp: bool) -> bytes | None:
        ident = secrets.randbelow(1 << 16)
        asked = dns_message.with_id(packet, ident)
        with trio.move_on_after(ATTEMPT_SECONDS):
            try:
                exchange = self._exchange_tcp if over_tcp else self._exchange_udp
                return await exchange(server, asked, ident, query.question)
            except OSError as exc:
                log.debug("resolver %s: %s", server, exc)
        return None

    async def _exchange_udp(self, server: str, packet: bytes, ident: int, question: bytes) -> bytes:
        with trio.socket.socket(_family(server), socket.SOCK_DGRAM) as sock:
            await sock.connect((server, self._port))
            await sock.send(packet)
            while True:
                reply = await sock.recv(_MAX_REPLY_BYTES)
                if dns_message.answers_query(reply, ident, question):
                    return reply

    async def _exchange_tcp(self, server: str, packet: bytes, ident: int, question: bytes) -> bytes:
        with trio.socket.socket(_family(server), socket.SOCK_STREAM) as sock:
            await sock.connect((server, self._port))
            stream = trio.SocketStream(sock)
            await stream.send_all(len(packet).to_bytes(2, "big") + packet)
            reply = await read_message(stream, _MAX_REPLY_BYTES)
            if reply is None or not dns_message.answers_query(reply, ident, question):
                raise ConnectionError(f"{server} closed the connection or answered something else")
            return reply


async def read_message(stream: trio.SocketStream, limit: int) -> bytes | None:
    """One message with its length in front; None at the end of the stream or beyond ``limit`` bytes."""
    head = await _read_exactly(stream, 2)
    if head is None or (size := int.from_bytes(head, "big")) > limit:
        return None
    return await _read_exactly(stream, size)


async def _read_exactly(stream: trio.SocketStream, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        chunk = await stream.receive_some(size - len(data))
        if not chunk:
            return None
        data += chunk
    return bytes(data)


def _family(server: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in server else socket.AF_INET
