"""A sandbox's way to the bridge: its network namespace and a veth pair, ``eth0`` inside and ``nc...`` on the node.

All of it happens in one short-lived thread. A netlink socket belongs to the namespace its thread was in when it was
opened, wherever the thread goes later: here one of the node's and one of the sandbox's. Repeats safely.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

from nanocloud.errors import ProviderError
from nanocloud_cni_bridge import netlink, netns, sysctls
from nanocloud_cni_bridge.attachment import GROUP
from nanocloud_cni_bridge.links import mac

if TYPE_CHECKING:
    from pathlib import Path

    from nanocloud_cni_bridge.attachment import Attachment
    from nanocloud_cni_bridge.settings import Settings

INSIDE = "eth0"
"""The sandbox's end of the pair."""


class BridgeGoneError(ProviderError):
    """Somebody removed the bridge: ensure it, then try again."""


def create(attachment: Attachment, path: Path, bridge: int, settings: Settings) -> None:
    """Make the sandbox's namespace at ``path`` and connect it to the bridge of that index."""

    def work() -> None:
        with netlink.Connection() as node:
            netns.unshare()
            netns.pin(path)
            _connect(node, attachment, bridge, settings)

    netns.in_own_thread(work)


def mend(attachment: Attachment, path: Path, bridge: int, settings: Settings) -> None:
    """Bring an attached sandbox's links back to what they should be."""

    def work() -> None:
        with netlink.Connection() as node:
            netns.enter(path)
            _connect(node, attachment, bridge, settings)

    netns.in_own_thread(work)


def _connect(node: netlink.Connection, attachment: Attachment, bridge: int, settings: Settings) -> None:
    """Runs in the sandbox's namespace; ``node`` speaks for the node's."""
    try:
        _add_pair(node, attachment, bridge, settings)
    except FileExistsError:
        # Another call made it, or a crash left it; it may hang on another bridge, or lack its other end.
        _take_over(node, attachment, bridge, settings)
    if attachment.ports:
        # A pod that reaches itself through a host port needs its frames sent back through the port they came from.
        end = node.find(attachment.link)
        if end is not None:
            node.ask(netlink.set_hairpin(end[0]))
    _configure_inside(attachment, settings)


def _add_pair(node: netlink.Connection, attachment: Attachment, bridge: int, settings: Settings) -> None:
    descriptor = netns.descriptor_of_thread()
    try:
        node.ask(
            netlink.add_veth(
                attachment.link,
                group=GROUP,
                mtu=settings.mtu,
                master=bridge,
                peer=INSIDE,
                peer_mac=mac(attachment.address),
                peer_namespace=descriptor,
            )
        )
    except OSError as exc:
        raise _explained(exc) from exc
    finally:
        os.close(descriptor)


def _take_over(node: netlink.Connection, attachment: Attachment, bridge: int, settings: Settings) -> None:
    end = node.find(attachment.link)
    if end is None or not _has_inside():
        if end is not None:
            node.ask(netlink.remove_link(attachment.link))
        _add_pair(node, attachment, bridge, settings)
        return
    index, up, master = end
    if master != bridge or not up:
        try:
            node.ask(netlink.set_up(index, master=bridge))
        except OSError as exc:
            raise _explained(exc) from exc


def _explained(exc: OSError) -> OSError | BridgeGoneError:
    if exc.errno in (errno.ENODEV, errno.EINVAL):  # no link, or no bridge, has the index any more
        return BridgeGoneError(f"the bridge is gone: {exc}")
    return exc


def _has_inside() -> bool:
    try:
        return bool(socket.if_nametoindex(INSIDE))
    except OSError:
        return False


def _configure_inside(attachment: Attachment, settings: Settings) -> None:
    # Needed by every service that drops its privileges and listens below 1024; the namespace is the pod's own.
    sysctls.write("ipv4/ip_unprivileged_port_start", "0")
    if settings.dual:
        sysctls.write(f"ipv6/conf/{INSIDE}/accept_ra", "0")
    index = socket.if_nametoindex(INSIDE)
    requests = [netlink.set_up(socket.if_nametoindex("lo")), netlink.set_up(index)]
    for network in settings.networks:
        for address in attachment.addresses:
            if address in network:
                requests.append(netlink.set_address(index, address, network.prefixlen))
                requests.append(netlink.set_default_route(index, network))
    with netlink.Connection() as inside:
        inside.ask(*requests)
