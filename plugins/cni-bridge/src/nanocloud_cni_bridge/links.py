"""Links, addresses and routes, by netlink: the bridge, and a veth pair for each sandbox.

Everything here blocks, runs in worker threads, and repeats safely: what is there already stays. A netlink socket
belongs to the namespace of the thread that opened it, wherever that thread goes later; ``connect`` uses one of each.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import contextmanager
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Any

import attrs

from nanocloud.errors import ProviderError
from nanocloud_cni_bridge import netns, sysctls
from nanocloud_cni_bridge.attachment import GROUP

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Address
    from pathlib import Path

    from nanocloud_cni_bridge.attachment import Attachment
    from nanocloud_cni_bridge.settings import Settings

INSIDE = "eth0"
"""The sandbox's end of the pair."""

_NO_DAD = 0x02  # IFA_F_NODAD: usable at once; nobody else is on this link when the address is set
_ROUTES_THAT_MATTER = 8  # shorter prefixes are default routes and halves of one, which every subnet overlaps
_DEFAULT_MTU = 1500


class BridgeGoneError(ProviderError):
    """Somebody removed the bridge: ensure it, then try again."""


@attrs.frozen
class LinkInfo:
    name: str
    master: int | None
    kind: str


@contextmanager
def netlink() -> Iterator[Any]:
    """A netlink socket in the calling thread's network namespace."""
    # Imported here: it costs 140 ms, and commands that only list plugins load this package, too.
    from pyroute2 import IPRoute

    with IPRoute() as connection:
        yield connection


def _code(exc: BaseException) -> int:
    """The errno of a pyroute2 NetlinkError or an OSError."""
    return int(getattr(exc, "code", None) or getattr(exc, "errno", None) or 0)


@contextmanager
def _except_for(*expected: int) -> Iterator[None]:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as exc:
        if _code(exc) not in expected:
            raise


def _find(host: Any, name: str) -> Any | None:
    found: list[Any] = []
    with _except_for(errno.ENODEV):
        found = list(host.link("get", ifname=name))
    return found[0] if found else None


def mac(address: IPv4Address) -> str:
    """A hardware address that follows from the IPv4 address: whoever gets an address later is found in old caches."""
    return ":".join(f"{byte:02x}" for byte in b"\x0a\x58" + address.packed)


# The bridge


def default_mtu() -> int:
    """The MTU of the interface that the default route uses."""
    with netlink() as host:
        for route in host.get_routes(family=socket.AF_INET):
            if route["dst_len"] == 0 and route.get("oif"):
                return int(host.link("get", index=route.get("oif"))[0].get("mtu"))
    return _DEFAULT_MTU


def overlaps(settings: Settings) -> list[str]:
    """Routes of other interfaces that our subnets overlap, in words."""
    found = []
    with netlink() as host:
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
    with netlink() as host:
        link = _find(host, settings.bridge)
        if link is None:
            with _except_for(errno.EEXIST):
                host.link(
                    "add",
                    ifname=settings.bridge,
                    kind="bridge",
                    group=GROUP,
                    mtu=settings.mtu,
                    address=mac(settings.network[1]),
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
    with netlink() as host:
        link = _find(host, name)
        return link is not None and _info(link).kind == "bridge" and link.get("group") == GROUP


def delete_link(name: str) -> None:
    """Remove a link, with its other end; one that is not there is no error."""
    with netlink() as host, _except_for(errno.ENODEV):
        # By name in one message: by index the link could have become another one meanwhile.
        host.link("del", ifname=name)


def our_links() -> list[LinkInfo]:
    """Every veth that carries our mark, attached to a bridge or not."""
    with netlink() as host:
        infos = [_info(link) for link in host.get_links(kind="veth") if link.get("group") == GROUP]
    return [info for info in infos if info.name.startswith("nc")]


def _info(link: Any) -> LinkInfo:
    details = link.get("linkinfo")
    return LinkInfo(link.get("ifname"), link.get("master"), str(details.get("kind")) if details else "")


# A sandbox


def create(attachment: Attachment, path: Path, bridge: int, settings: Settings) -> None:
    """Make the sandbox's namespace at ``path`` and connect it to the bridge of that index."""

    def work() -> None:
        with netlink() as host:
            netns.unshare()
            netns.pin(path)
            _connect(host, attachment, bridge, settings)

    netns.in_own_thread(work)


def mend(attachment: Attachment, path: Path, bridge: int, settings: Settings) -> None:
    """Bring an attached sandbox's links back to what they should be."""

    def work() -> None:
        with netlink() as host:
            netns.enter(path)
            _connect(host, attachment, bridge, settings)

    netns.in_own_thread(work)


def _connect(host: Any, attachment: Attachment, bridge: int, settings: Settings) -> None:
    """Runs in the sandbox's namespace; ``host`` is a socket of the node's."""
    if not _has_pair(host, attachment.link, bridge):
        _add_pair(host, attachment, bridge, settings)
    if attachment.ports:
        # A pod that reaches itself through a host port needs its frames sent back through the port they came from.
        host.brport("set", index=host.link("get", ifname=attachment.link)[0]["index"], mode=1)
    # Needed by every service that drops its privileges and listens below 1024; the namespace is the pod's own.
    sysctls.write("ipv4/ip_unprivileged_port_start", "0")
    with netlink() as inside:
        inside.link("set", index=socket.if_nametoindex("lo"), state="up")
        index = socket.if_nametoindex(INSIDE)
        if settings.dual:
            sysctls.write(f"ipv6/conf/{INSIDE}/accept_ra", "0")
        inside.link("set", index=index, state="up")
        for address, network in zip(attachment.addresses, settings.networks, strict=False):
            with _except_for(errno.EEXIST):
                inside.addr(
                    "add", index=index, address=str(address), prefixlen=network.prefixlen, **_flags(str(address))
                )
            inside.route("replace", family=_family(network), dst="default", gateway=str(network[1]), oif=index)


def _family(network: IPv4Network | IPv6Network) -> int:
    return socket.AF_INET if network.version == 4 else socket.AF_INET6


def _has_pair(host: Any, name: str, bridge: int) -> bool:
    """Whether the pair is whole; half a pair, or a leftover of the same name, is removed."""
    link = _find(host, name)
    if link is None:
        return False
    try:
        socket.if_nametoindex(INSIDE)
    except OSError:
        with _except_for(errno.ENODEV):
            host.link("del", index=link["index"])
        return False
    if link.get("master") != bridge or link["state"] != "up":
        with _bridge_must_exist():
            host.link("set", index=link["index"], master=bridge, state="up")
    return True


def _add_pair(host: Any, attachment: Attachment, bridge: int, settings: Settings) -> None:
    descriptor = netns.descriptor_of_thread()
    try:
        with _bridge_must_exist():
            host.link(
                "add",
                ifname=attachment.link,
                kind="veth",
                group=GROUP,
                mtu=settings.mtu,
                master=bridge,
                state="up",
                peer={
                    "ifname": INSIDE,
                    "net_ns_fd": descriptor,
                    "mtu": settings.mtu,
                    "address": mac(attachment.address),
                },
            )
    finally:
        os.close(descriptor)


@contextmanager
def _bridge_must_exist() -> Iterator[None]:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as exc:
        if _code(exc) in (errno.ENODEV, errno.EINVAL):  # no link, or no bridge, has the index any more
            raise BridgeGoneError(f"the bridge is gone: {exc}") from exc
        raise
