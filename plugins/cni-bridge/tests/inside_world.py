"""The world around a bridge network under test: an outside host, its own node, and looks at what is left.

A pytest plugin: ``test_bridge_network.py`` loads it for the cases that it runs in namespaces of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio

from nanocloud.providers.network import PortMapping, SandboxNetwork
from nanocloud_cni_bridge import links, netns, sysctls
from nanocloud_cni_bridge.attachment import link_name
from nanocloud_cni_bridge.config import BridgeConfig
from nanocloud_cni_bridge.network import BridgeNetwork

T = TypeVar("T")

WORLD, NODE = "203.0.113.2", "203.0.113.1"
WORLD6, NODE6 = "2001:db8:77::2", "2001:db8:77::1"
GATEWAY = "10.118.0.1"

# The caller tells which network namespace is the machine's.
if os.environ.get("OUTER_NETNS", "") in ("", str(Path("/proc/self/ns/net").stat().st_ino)):
    raise RuntimeError("these cases run only in a network namespace of their own; run test_bridge_network.py")


def command(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def within(path: Path, work: Callable[[], T]) -> T:
    """Run blocking ``work`` in the network namespace at ``path``."""

    def enter_and_work() -> T:
        netns.enter(path)
        return work()

    return netns.in_own_thread(enter_and_work)


@pytest.fixture(scope="module", autouse=True)
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A host outside the node that knows no way back to the pods."""
    path = tmp_path_factory.mktemp("world") / "netns"

    def make() -> None:
        netns.unshare()
        netns.pin(path)
        command("ip", "link", "set", "lo", "up")

    command("ip", "link", "set", "lo", "up")
    netns.in_own_thread(make)
    command("ip", "link", "add", "ext0", "type", "veth", "peer", "name", "world0", "netns", str(path))
    command("ip", "address", "add", f"{NODE}/24", "dev", "ext0")
    command("ip", "-6", "address", "add", f"{NODE6}/64", "dev", "ext0", "nodad")
    command("ip", "link", "set", "ext0", "up")

    def configure() -> None:
        command("ip", "address", "add", f"{WORLD}/24", "dev", "world0")
        command("ip", "-6", "address", "add", f"{WORLD6}/64", "dev", "world0", "nodad")
        command("ip", "link", "set", "world0", "up")

    within(path, configure)
    yield path
    command("ip", "link", "del", "ext0")
    netns.remove(path)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., BridgeNetwork]:
    def build(**config: Any) -> BridgeNetwork:
        return BridgeNetwork(BridgeConfig(**config), state_dir=tmp_path / "state", run_dir=tmp_path / "run")

    return build


@pytest.fixture
async def network(make: Callable[..., BridgeNetwork], tmp_path: Path) -> AsyncIterator[BridgeNetwork]:
    before = outer_inventory(tmp_path)
    async with make() as provider:
        yield provider
    await provider.purge()
    assert outer_inventory(tmp_path) == before


def outer_inventory(folder: Path) -> dict[str, Any]:
    """What there is on the node, ours or not."""
    return {
        "links": sorted(link["ifname"] for link in json.loads(command("ip", "-json", "link"))),
        "addresses": command("ip", "-brief", "address"),
        "routes": command("ip", "route") + command("ip", "-6", "route"),
        "tables": command("nft", "list", "tables"),
        "mounts": [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(folder) in line],
        "files": sorted(str(p) for p in folder.rglob("*") if p.is_file()),
        "sysctls": {
            name: sysctls.read(name) for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding")
        } | {f"ra of {n}": sysctls.read(f"ipv6/conf/{n}/accept_ra") for n in ("all", "default", "ext0", "lo")},
    }  # fmt: skip


def inventory(folder: Path) -> dict[str, Any]:
    """What there is of sandboxes, asked of the kernel and the folders."""
    table = json.loads(command("nft", "--json", "list", "table", "inet", "nanocloud"))
    return {
        "links": sorted(info.name for info in links.our_links()),
        "namespaces": sorted(path.name for path in (folder / "run/netns").iterdir()),
        "mounts": sum("nsfs" in m and str(folder) in m for m in Path("/proc/self/mountinfo").read_text().splitlines()),
        "records": sorted(path.stem for path in (folder / "run/network/attached").iterdir()),
        "ports": sum(len(item["map"].get("elem", ())) for item in table["nftables"] if "map" in item),
    }


def published(host_port: int, container_port: int = 80, ip: str | None = None, **more: Any) -> PortMapping:
    host_ip = None if ip is None else ip_address(ip)
    return PortMapping(host_port=host_port, container_port=container_port, host_ip=host_ip, **more)


@contextlib.contextmanager
def answering(path: Path, port: int, *, udp: bool = False, six: bool = False) -> Iterator[None]:
    """A program in the namespace at ``path`` that tells whoever connects which address it sees."""
    family = socket.AF_INET6 if six else socket.AF_INET
    listener = within(path, lambda: socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM))
    if not udp:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("", port))
    if not udp:
        listener.listen()
    stop, stopped = socket.socketpair()

    def serve() -> None:
        while stopped not in (ready := select.select([listener, stopped], [], [])[0]):
            if udp:
                _, peer = listener.recvfrom(10)
                listener.sendto(peer[0].encode(), peer)
            elif ready:
                connection, peer = listener.accept()
                with connection:
                    connection.sendall(peer[0].encode())

    thread = threading.Thread(target=serve)
    thread.start()
    with stop, stopped, listener:
        try:
            yield
        finally:
            stop.send(b".")
            thread.join()


def seen_from(address: str, port: int, *, udp: bool = False, timeout: float = 3) -> str:
    """Connect, and say which address the other side saw."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout)
        sock.connect((address, port))
        if udp:
            sock.send(b"?")
        return sock.recv(100).decode()


async def from_inside(path: Path, address: str, port: int, **more: Any) -> str:
    return await trio.to_thread.run_sync(within, path, lambda: seen_from(address, port, **more))


async def from_node(address: str, port: int, **more: Any) -> str:
    return await trio.to_thread.run_sync(lambda: seen_from(address, port, **more))


async def ping(path: Path, address: str) -> None:
    """An echo request by hand: there need not be a ping program."""

    def work() -> None:
        six = ":" in address
        family, proto = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if six else (socket.AF_INET, socket.IPPROTO_ICMP)
        with socket.socket(family, socket.SOCK_RAW, proto) as sock:
            sock.settimeout(5)
            body = bytes([128 if six else 8, 0, 0, 0, 0, 7, 0, 1])
            if not six:
                total = ~(sum(int.from_bytes(body[i : i + 2], "big") for i in range(0, 8, 2)) % 0xFFFF) & 0xFFFF
                body = body[:2] + total.to_bytes(2, "big") + body[4:]
            sock.sendto(body, (address, 0))
            while True:
                reply, peer = sock.recvfrom(200)
                if peer[0] == address and reply[0 if six else 20] == (129 if six else 0):
                    return

    await trio.to_thread.run_sync(within, path, work)


def four(sandbox: SandboxNetwork) -> str:
    return str(next(a for a in sandbox.addresses if a.version == 4))


def six(sandbox: SandboxNetwork) -> str:
    return str(next(a for a in sandbox.addresses if a.version == 6))


def link_of(sandbox: str) -> str:
    """The host's end of a sandbox's link."""
    return link_name(sandbox)
