"""Which host ports sandboxes hold, and whether a program of the host holds one already.

Rules would win over a program's socket silently, so a port that a program listens on is refused. The probe really
binds the address, as the program did; ``/proc/net`` only explains a refusal.
"""

from __future__ import annotations

import errno
import re
import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from nanocloud.errors import PortInUseError, ProviderError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nanocloud.providers.network import IPAddress, PortMapping
    from nanocloud_cni_bridge.attachment import Attachment

_TIME_WAIT = 6  # a dying connection; Linux keeps it for a minute, and it blocks nobody
_INODE_LINK = re.compile(r"socket:\[(\d+)]")
DNS_PORT = 53


@attrs.frozen(kw_only=True)
class Claim:
    """One family's share of a mapping."""

    protocol: str
    port: int
    family: int
    """4 or 6"""
    ip: IPAddress | None
    """None: every address of that family."""

    def overlaps(self, other: Claim) -> bool:
        return self.ip is None or other.ip is None or self.ip == other.ip

    def __str__(self) -> str:
        return f"{self.port}/{self.protocol}" if self.ip is None else f"{self.port}/{self.protocol} on {self.ip}"


def claims(port: PortMapping, *, dual: bool) -> Iterator[Claim]:
    """What a mapping claims; ``0.0.0.0`` and ``::`` mean every address of their family, None means both families."""
    ip = None if port.host_ip is None or port.host_ip.is_unspecified else port.host_ip
    if not isinstance(port.host_ip, IPv6Address):
        yield Claim(protocol=port.protocol, port=port.host_port, family=4, ip=ip)
    if dual and not isinstance(port.host_ip, IPv4Address):
        yield Claim(protocol=port.protocol, port=port.host_port, family=6, ip=ip)


class PortTable:
    """The claims of all sandboxes, attached or being attached."""

    def __init__(self, *, dual: bool) -> None:
        self._dual = dual
        self._held: dict[tuple[str, int, int], list[tuple[Claim, Attachment]]] = {}

    def take(self, attachment: Attachment) -> None:
        """All of the attachment's ports or none.

        Raises:
            PortInUseError: another sandbox holds one; names both.
            ProviderError: IPv6 was asked for where the network has none.
        """
        wanted: list[Claim] = []
        for mapping in dict.fromkeys(attachment.ports):
            if isinstance(mapping.host_ip, IPv6Address) and not self._dual:
                raise ProviderError(
                    f"sandbox {attachment.sandbox}: host port {mapping.host_port} asks for {mapping.host_ip}, "
                    "but this network has no IPv6"
                )
            if isinstance(mapping.host_ip, IPv6Address) and mapping.host_ip.is_loopback:
                raise ProviderError(
                    f"sandbox {attachment.sandbox}: host port {mapping.host_port} asks for ::1, "
                    "which Linux cannot forward; use 127.0.0.1"
                )
            for claim in claims(mapping, dual=self._dual):
                for other, rival in self._holders(claim):
                    raise PortInUseError(
                        f"host port {claim} is held by sandbox {rival.sandbox} ({rival.owner}) as {other}"
                    )
                if any(_same_port(claim, mine) and claim.overlaps(mine) for mine in wanted):
                    raise PortInUseError(
                        f"sandbox {attachment.sandbox} ({attachment.owner}) maps host port {claim} twice"
                    )
                wanted.append(claim)
        for claim in wanted:
            self._held.setdefault((claim.protocol, claim.port, claim.family), []).append((claim, attachment))

    def drop(self, attachment: Attachment) -> None:
        for mapping in attachment.ports:
            for claim in claims(mapping, dual=self._dual):
                key = (claim.protocol, claim.port, claim.family)
                kept = [pair for pair in self._held.get(key, ()) if pair[1].sandbox != attachment.sandbox]
                if kept:
                    self._held[key] = kept
                else:
                    self._held.pop(key, None)

    def _holders(self, claim: Claim) -> Iterator[tuple[Claim, Attachment]]:
        for other, attachment in self._held.get((claim.protocol, claim.port, claim.family), ()):
            if other.overlaps(claim):
                yield other, attachment


def _same_port(one: Claim, other: Claim) -> bool:
    return (one.protocol, one.port, one.family) == (other.protocol, other.port, other.family)


def probe(ports: Iterable[PortMapping], *, dual: bool, gateways: Iterable[IPAddress]) -> None:
    """Refuse ports that a program of the host holds. Blocking, but only for system calls.

    Args:
        gateways: where our own name server answers; its port 53 is no obstacle, for the rules leave it alone.

    Raises:
        PortInUseError: names the port and the program.
        ProviderError: ``host_ip`` is no address of this node.
    """
    for mapping in ports:
        for claim in claims(mapping, dual=dual):
            _probe(claim, frozenset(gateways))


def _probe(claim: Claim, gateways: frozenset[IPAddress]) -> None:
    family = socket.AF_INET if claim.family == 4 else socket.AF_INET6
    kind = socket.SOCK_STREAM if claim.protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind | socket.SOCK_CLOEXEC) as trial:
        if claim.family == 6:
            trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            trial.bind((str(claim.ip) if claim.ip is not None else "", claim.port))
        except OSError as exc:
            if exc.errno == errno.EADDRNOTAVAIL:
                raise ProviderError(f"host port {claim}: {claim.ip} is no address of this node") from exc
            if exc.errno != errno.EADDRINUSE:
                raise ProviderError(f"host port {claim} cannot be tried: {exc}") from exc
            if who := holder(claim, gateways):
                raise PortInUseError(f"host port {claim} is held by {who}") from None


def holder(claim: Claim, gateways: frozenset[IPAddress] = frozenset()) -> str | None:
    """Words for the program in the way; None where only dying connections or our own name server are."""
    rows = [row for row in sockets(claim.protocol) if row.port == claim.port and row.concerns(claim)]
    real = [row for row in rows if not row.dying and not (row.port == DNS_PORT and row.ip in gateways)]
    if real:
        return " and ".join(sorted({owner_of(row.inode) for row in real}))
    # A socket that is bound and does not listen stands in no table.
    return None if rows else "a program that has bound it without listening"


@attrs.frozen
class SocketRow:
    """A line of /proc/net/{tcp,udp}[6]."""

    ip: IPAddress
    port: int
    dying: bool
    inode: int

    def concerns(self, claim: Claim) -> bool:
        mapped = self.ip.ipv4_mapped if isinstance(self.ip, IPv6Address) else None
        ip = mapped or self.ip
        if claim.family == 4 and isinstance(ip, IPv6Address):
            return ip.is_unspecified  # a dual-stack socket
        if claim.family == 6 and isinstance(ip, IPv4Address):
            return False
        return claim.ip is None or ip.is_unspecified or ip == claim.ip


def sockets(protocol: str) -> Iterator[SocketRow]:
    """The host's sockets of ``tcp`` or ``udp``, both families."""
    for table in (protocol, protocol + "6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except FileNotFoundError:  # a kernel without IPv6
            continue
        for line in lines:
            fields = line.split()
            address, _, port = fields[1].partition(":")
            yield SocketRow(_parse(address), int(port, 16), int(fields[3], 16) == _TIME_WAIT, int(fields[9]))


def _parse(text: str) -> IPAddress:
    # The kernel prints the address as 32-bit words in its own byte order.
    raw = b"".join(struct.pack("=I", int(text[i : i + 8], 16)) for i in range(0, len(text), 8))
    return IPv4Address(raw) if len(raw) == 4 else IPv6Address(raw)


def owner_of(inode: int) -> str:
    """``nginx (pid 812)`` for a socket's inode, as far as /proc tells."""
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            for descriptor in (process / "fd").iterdir():
                match = _INODE_LINK.fullmatch(str(descriptor.readlink()))
                if match and int(match[1]) == inode:
                    return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
        except OSError:  # it ended while we looked
            continue
    return "a program of the host"
