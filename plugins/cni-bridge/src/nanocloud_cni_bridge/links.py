"""The bridge, and whatever else the node's links are asked for that no pod's start waits for.

Everything here blocks, runs in worker threads, and repeats safely: what is there already stays.
"""

from __future__ import annotations

import errno
import socket
from contextlib import contextmanager
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import attrs

from nanocloud.errors import ProviderError
from nanocloud_cni_bridge import sysctls
from nanocloud_cni_bridge.attachment import GROUP
from nanocloud_cni_bridge.netlink import Connection, remove_link

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Address

    from nanocloud_cni_bridge.settings import Settings

_NO_DAD = 0x02  # IFA_F_NODAD: usable at once; nobody else is on this link when the address is set
_ROUTES_THAT_MATTER = 8  # shorter prefixes are default routes and halves of one, which every subnet overlaps
_DEFAULT_MTU = 1500


@attrs.frozen
class LinkInfo:
    name: str
    master: int | None
    kind: str


@contextmanager
def _pyroute() -> Iterator[Any]:
    """A netlink socket in the calling thread's network namespace."""
    # Imported here: it costs 140 ms, and commands that only list plugins load this package, too.
    from pyroute2 import IPRoute

    with IPRoute() as connection:
        yield connection


@contextmanager
def _except_for(*expected: int) -> Iterator[None]:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as exc:
        if exc.code not in expected:
            raise


def _find(host: Any, name: str) -> Any | None:
    found: list[Any] = []
    with _except_for(errno.ENODEV):
        found = list(host.link("get", ifname=name))
    return found[0] if found else None


def mac(address: IPv4Address) -> bytes:
    """A hardware address that follows from the IPv4 address: whoever gets an address later is found in old caches."""
    return b"\x0a\x58" + address.packed


def default_mtu() -> int:
    """The MTU of the interface that the default route uses."""
    with _pyroute() as host:
        for route in host.get_routes(family=socket.AF_INET):
            if route["dst_len"] == 0 and route.get("oif"):
                return int(host.link("get", index=route.get("oif"))[0].get("mtu"))
    return _DEFAULT_MTU


def overlaps(settings: Settings) -> list[str]:
    """Routes of other interfaces that our subnets overlap, in words."""
    found = []
    with _pyroute() as host:
        names = {link["index"]: link.get("ifname") for link in host.get_links()}
        for ours in settings.networks:
            for route in host.get_routes(family=socket.AF_INET if ours.version == 4 else socket.AF_INET6):
                device = names.get(route.get("oif"))
                if device in (None, settings.bridge) or route["dst_len"] < _ROUTES_THAT_MATTER:
                    continue
                theirs = ip_network(f"{route.get('dst')}/{route['dst_len']}", strict=False)
                if theirs.version == ours.version and theirs.overlaps(ours):
                    found.append(f"{ours} overlaps {theirs} of interface {device}")
    return found


def ensure_bridge(settings: Settings) -> int:
    """Make the bridge as configured, or mend it; its index.

    Raises:
        ProviderError: a link of that name exists and is no bridge.
    """
    with _pyroute() as host:
        link = _find(host, settings.bridge)
        if link is None:
            with _except_for(errno.EEXIST):
                host.link(
                    "add",
                    ifname=settings.bridge,
                    kind="bridge",
                    group=GROUP,
                    mtu=settings.mtu,
                    address=mac(settings.network[1]).hex(":"),
                    state="up",
                )
            link = host.link("get", ifname=settings.bridge)[0]
        if _info(link).kind != "bridge":
            raise ProviderError(
                f"interface {settings.bridge} exists and is no bridge",
                hint="remove it, or set another name as bridge in [cni-bridge] of the configuration",
            )
        index = int(link["index"])
        if link["state"] != "up" or link.get("mtu") != settings.mtu:
            host.link("set", index=index, state="up", mtu=settings.mtu)
        _tune_bridge(settings)
        _address_bridge(host, index, settings, mine=link.get("group") == GROUP)
    return index


def _tune_bridge(settings: Settings) -> None:
    # Lets rules send connections from 127.0.0.1 to pods; the table's guard chain keeps pods off the loopback.
    sysctls.write(f"ipv4/conf/{settings.bridge}/route_localnet", "1")
    if settings.dual:
        sysctls.write(f"ipv6/conf/{settings.bridge}/disable_ipv6", "0")
        sysctls.write(f"ipv6/conf/{settings.bridge}/accept_ra", "0")


def _address_bridge(host: Any, index: int, settings: Settings, *, mine: bool) -> None:
    """Of an administrator's own bridge (not ``mine``) no address is taken away."""
    wanted = {(str(network[1]), network.prefixlen) for network in settings.networks}
    present = {(a.get("address"), a["prefixlen"]) for a in host.get_addr(index=index)}
    for address, length in wanted - present:
        with _except_for(errno.EEXIST):
            host.addr("add", index=index, address=address, prefixlen=length, **_flags(address))
    for address, length in present - wanted if mine else ():
        if not address.startswith("fe80:"):  # an earlier subnet
            with _except_for(errno.EADDRNOTAVAIL):
                host.addr("delete", index=index, address=address, prefixlen=length)


def _flags(address: str) -> dict[str, int]:
    return {"flags": _NO_DAD} if ":" in address else {}


def is_our_bridge(name: str) -> bool:
    """Whether the bridge of that name was made here: an administrator's own bridge is never removed."""
    with _pyroute() as host:
        link = _find(host, name)
        return link is not None and _info(link).kind == "bridge" and link.get("group") == GROUP


def delete_link(name: str) -> None:
    """Remove a link, with its other end; one that is not there is no error."""
    with Connection() as node:
        try:
            node.ask(remove_link(name))
        except OSError as exc:
            if exc.errno != errno.ENODEV:
                raise


def our_links() -> list[LinkInfo]:
    """Every veth that carries our mark, attached to a bridge or not."""
    with _pyroute() as host:
        infos = [_info(link) for link in host.get_links(kind="veth") if link.get("group") == GROUP]
    return [info for info in infos if info.name.startswith("nc")]


def _info(link: Any) -> LinkInfo:
    details = link.get("linkinfo")
    return LinkInfo(link.get("ifname"), link.get("master"), str(details.get("kind")) if details else "")
