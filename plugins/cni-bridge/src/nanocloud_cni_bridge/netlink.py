"""The few route netlink requests that a pod's start waits for, as bytes: many in one message, acknowledged together.

pyroute2 does everything that is not on that path. A dual-stack pod takes eight requests; through pyroute2, with a
socket for each side, they take three times as long as here.

Shape of a request: a header (length, type, flags, sequence number, port), a fixed struct, then attributes (length,
type, value), each padded to 4 bytes. Source: netlink(7), rtnetlink(7), linux/if_link.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Network, IPv6Network

    from nanocloud.providers.network import IPAddress

IFF_UP: Final = 1

_ERROR, _NEW_LINK, _DEL_LINK, _GET_LINK, _SET_LINK, _NEW_ADDRESS, _NEW_ROUTE = 2, 16, 17, 18, 19, 20, 24
_REQUEST, _ACK, _REPLACE, _EXCLUSIVE, _CREATE = 1, 4, 0x100, 0x200, 0x400
_NESTED = 0x8000
_ADDRESS, _IFNAME, _MTU, _MASTER, _PROTINFO, _LINKINFO, _GROUP, _NET_NS_FD = 1, 3, 4, 10, 12, 18, 27, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_BRPORT_HAIRPIN = 4
_IFA_ADDRESS, _IFA_LOCAL, _IFA_NO_DAD = 1, 2, 2
_RTA_OIF, _RTA_GATEWAY = 4, 5
_MAIN_TABLE, _STATIC, _UNICAST = 254, 4, 1

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_BUFFER_BYTES = 1 << 16


class Request:
    """``what`` names the step where the kernel refuses it."""

    def __init__(self, what: str, kind: int, flags: int, body: bytes) -> None:
        self.what, self.kind, self.flags, self.body = what, kind, flags, body


def add_veth(
    name: str, *, group: int, mtu: int, master: int, peer: str, peer_mac: bytes, peer_namespace: int
) -> Request:
    """A pair in one step: this end up on the bridge ``master``, the other in the namespace of that descriptor."""
    other = _LINK.pack(0, 0, 0, 0, 0) + b"".join(
        (_text(_IFNAME, peer), _int(_NET_NS_FD, peer_namespace), _int(_MTU, mtu), _attribute(_ADDRESS, peer_mac))
    )
    info = _text(_INFO_KIND, "veth") + _attribute(_INFO_DATA | _NESTED, _attribute(_VETH_PEER | _NESTED, other))
    body = _LINK.pack(0, 0, 0, IFF_UP, IFF_UP) + b"".join(
        (
            _text(_IFNAME, name),
            _int(_GROUP, group),
            _int(_MTU, mtu),
            _int(_MASTER, master),
            _attribute(_LINKINFO | _NESTED, info),
        )
    )
    return Request(f"adding {name}", _NEW_LINK, _CREATE | _EXCLUSIVE, body)


def set_up(index: int, *, master: int | None = None) -> Request:
    body = _LINK.pack(0, 0, index, IFF_UP, IFF_UP) + (b"" if master is None else _int(_MASTER, master))
    return Request("setting a link up", _SET_LINK, 0, body)


def set_hairpin(index: int) -> Request:
    """Let the bridge send frames back through the port they came from."""
    port = _attribute(_PROTINFO | _NESTED, _attribute(_BRPORT_HAIRPIN, b"\1"))
    return Request("setting hairpin mode", _SET_LINK, 0, _LINK.pack(socket.AF_BRIDGE, 0, index, 0, 0) + port)


def remove_link(name: str) -> Request:
    """By name: an index could have become another link's meanwhile."""
    return Request(f"removing {name}", _DEL_LINK, 0, _LINK.pack(0, 0, 0, 0, 0) + _text(_IFNAME, name))


def get_link(name: str) -> Request:
    return Request(f"looking for {name}", _GET_LINK, 0, _LINK.pack(0, 0, 0, 0, 0) + _text(_IFNAME, name))


def set_address(index: int, address: IPAddress, prefix_length: int) -> Request:
    """Usable at once, also over IPv6: nobody else on the link has it, so there is nothing to detect."""
    flags = _IFA_NO_DAD if address.version == 6 else 0
    body = _IFADDR.pack(_family(address), prefix_length, flags, 0, index)
    body += _attribute(_IFA_LOCAL, address.packed) + _attribute(_IFA_ADDRESS, address.packed)
    return Request(f"setting address {address}", _NEW_ADDRESS, _CREATE | _REPLACE, body)


def set_default_route(index: int, network: IPv4Network | IPv6Network) -> Request:
    """By way of the network's first address, the bridge."""
    gateway = network[1]
    body = _ROUTE.pack(_family(gateway), 0, 0, 0, _MAIN_TABLE, _STATIC, 0, _UNICAST, 0)
    body += _attribute(_RTA_GATEWAY, gateway.packed) + _int(_RTA_OIF, index)
    return Request(f"setting the default route to {gateway}", _NEW_ROUTE, _CREATE | _REPLACE, body)


def link_facts(body: bytes) -> tuple[int, bool, int | None]:
    """(index, whether it is up, index of its master) from the reply to ``get_link``."""
    _, _, index, flags, _ = _LINK.unpack_from(body)
    master = next((value for kind, value in attributes(body[_LINK.size :]) if kind == _MASTER), None)
    return index, bool(flags & IFF_UP), None if master is None else struct.unpack("=I", master)[0]


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, value) of each attribute; ends at the first that is none."""
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        yield kind & 0x3FFF, data[at + 4 : at + length]
        at += (length + 3) & ~3


def messages(packet: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, sequence number, body) of each message in ``packet``; ends at the first that is none."""
    at = 0
    while at + _HEADER.size <= len(packet):
        length, kind, _, sequence, _ = _HEADER.unpack_from(packet, at)
        if length < _HEADER.size:
            return
        yield kind, sequence, packet[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


class Connection:
    """A socket in the network namespace that the calling thread is in now; it stays there. For one thread."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, *requests: Request) -> list[bytes]:
        """Carry all of them out, in order; the bodies of the replies that are more than "done".

        Raises:
            OSError: the first that the kernel refused, with the kernel's number; later ones were tried as well.
        """
        first = self._sequence + 1
        self._sequence += len(requests)
        packet = b""
        for sequence, request in enumerate(requests, first):
            size = _HEADER.size + len(request.body)
            header = _HEADER.pack(size, request.kind, _REQUEST | _ACK | request.flags, sequence, 0)
            packet += header + request.body + b"\0" * (-size % 4)
        self._socket.sendall(packet)
        replies: list[bytes] = []
        refusals: dict[int, int] = {}
        waiting = len(requests)
        while waiting:
            for kind, sequence, body in messages(self._socket.recv(_BUFFER_BYTES)):
                if kind != _ERROR:
                    replies.append(body)
                    continue
                waiting -= 1
                if number := -struct.unpack_from("=i", body)[0]:
                    refusals[sequence] = number
        if refusals:
            sequence = min(refusals)
            number = refusals[sequence]
            raise OSError(number, f"{requests[sequence - first].what}: {os.strerror(number)}")
        return replies

    def find(self, name: str) -> tuple[int, bool, int | None] | None:
        """``link_facts`` of the link of that name; None where there is none."""
        try:
            return link_facts(self.ask(get_link(name))[0])
        except OSError as exc:
            if exc.errno == errno.ENODEV:
                return None
            raise


def _attribute(kind: int, value: bytes) -> bytes:
    size = 4 + len(value)
    return struct.pack("=HH", size, kind) + value + b"\0" * (-size % 4)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _int(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _family(address: IPAddress) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6
