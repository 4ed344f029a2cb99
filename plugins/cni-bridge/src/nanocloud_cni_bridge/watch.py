"""Tells when somebody else changed what we made: the bridge, its addresses, a sandbox's link, the packet rules.

The kernel announces changes on two netlink sockets. Only what may concern us is passed on, and whoever is told has to
look for himself; our own changes come by here, too. Adding and removing single ports is not passed on.

Source: rtnetlink(7); linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING

import trio

from nanocloud_cni_bridge.netlink import attributes, messages

if TYPE_CHECKING:
    from collections.abc import Callable

_NETLINK_ROUTE, _NETLINK_NETFILTER = 0, 12
_ROUTE_GROUPS = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_NFTABLES_GROUP = 1 << (7 - 1)  # NFNLGRP_NFTABLES
_NEW_LINK, _DEL_LINK, _DEL_ADDRESS = 16, 17, 21
_AF_UNSPEC, _IFF_UP, _IFLA_IFNAME = 0, 1, 3
_NFTABLES = 10  # NFNL_SUBSYS_NFTABLES, the upper byte of the message type
_SHAPE_CHANGES = frozenset((2, 3, 5, 6, 8, 9, 11))  # DELTABLE, {NEW,DEL}CHAIN, {NEW,DEL}RULE, {NEW,DEL}SET
_TABLE_ATTRIBUTE = 1  # NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE and NFTA_SET_TABLE alike

_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_BUFFER_BYTES = 1 << 16


def open_sockets() -> tuple[socket.socket, socket.socket]:
    """The two sockets, for links and for rules; they hear every change from now on."""
    links = _listening(_NETLINK_ROUTE, _ROUTE_GROUPS)
    try:
        return links, _listening(_NETLINK_NETFILTER, _NFTABLES_GROUP)
    except OSError:
        links.close()
        raise


def _listening(protocol: int, groups: int) -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    sock.bind((0, groups))
    return sock


async def watch(sock: socket.socket, concerns: Callable[[int, bytes], bool], changed: Callable[[], None]) -> None:
    """Call ``changed`` for every message on ``sock`` that ``concerns`` picks; closes ``sock`` in the end."""
    with trio.socket.from_stdlib_socket(sock) as listening:
        while True:
            try:
                packet = await listening.recv(_BUFFER_BYTES)
            except OSError as exc:
                if exc.errno != errno.ENOBUFS:
                    raise
                changed()  # more happened than the socket could hold: anything may have changed
                continue
            if any(concerns(kind, body) for kind, _, body in messages(packet)):
                changed()


def link_concerns(kind: int, body: bytes, *, bridge: str, index: int, links: Callable[[str], bool]) -> bool:
    """Whether a route message may mean harm to the bridge or a link for which ``links`` is true."""
    if kind == _DEL_ADDRESS:
        return bool(_ADDRESS.unpack_from(body)[4] == index)
    if kind not in (_NEW_LINK, _DEL_LINK):
        return False
    family, _, found, flags, _ = _LINK.unpack_from(body)
    if family != _AF_UNSPEC:
        return False
    name = _text(body[_LINK.size :], _IFLA_IFNAME)
    if kind == _NEW_LINK:
        return (found == index or name == bridge) and not flags & _IFF_UP
    return found == index or name == bridge or links(name)


def rules_concern(kind: int, body: bytes, *, table: str) -> bool:
    """Whether an nftables message tells of a change to the shape of our table."""
    if kind >> 8 != _NFTABLES or kind & 0xFF not in _SHAPE_CHANGES:
        return False
    return _text(body[4:], _TABLE_ATTRIBUTE) == table


def _text(data: bytes, wanted: int) -> str:
    found = next((value for kind, value in attributes(data) if kind == wanted), b"")
    return found.rstrip(b"\0").decode(errors="replace")
