"""The whole contract against this kernel. ``test_bridge_network.py`` runs it in namespaces of its own."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import sys
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import trio
from inside_world import (
    GATEWAY,
    NODE,
    NODE6,
    WORLD,
    WORLD6,
    answering,
    command,
    four,
    from_inside,
    from_node,
    inventory,
    link_of,
    outer_inventory,
    ping,
    published,
    six,
    within,
)

from nanocloud.errors import AlreadyExistsError, InvalidError, PortInUseError, ProviderError
from nanocloud.providers.network import SandboxId, SandboxNetwork
from nanocloud.testkit.specs import sandbox_spec
from nanocloud_cni_bridge import netlink, netns, rules, sysctls, veth
from nanocloud_cni_bridge.network import BridgeNetwork


async def test_sandboxes_reach_each_other_and_the_node(network: BridgeNetwork) -> None:
    one, two = await network.attach(sandbox_spec("one")), await network.attach(sandbox_spec("two"))
    assert [str(n) for n in one.nameservers] == [GATEWAY, "fd6e:616e:6f63::1"]
    for address in (four(two), six(two), GATEWAY, "fd6e:616e:6f63::1", NODE):
        await ping(one.namespace_path, address)
    with answering(two.namespace_path, 80):
        assert await from_inside(one.namespace_path, four(two), 80) == four(one)
        assert await from_node(four(two), 80) == GATEWAY


async def test_the_world_sees_the_nodes_address(network: BridgeNetwork, world: Path) -> None:
    one = await network.attach(sandbox_spec("one"))
    with answering(world, 80):
        assert await from_inside(one.namespace_path, WORLD, 80) == NODE
    with answering(world, 80, six=True):
        assert await from_inside(one.namespace_path, WORLD6, 80) == NODE6
    with answering(world, 53, udp=True):
        assert await from_inside(one.namespace_path, WORLD, 53, udp=True) == NODE


async def test_the_world_reaches_published_ports_only(network: BridgeNetwork, world: Path) -> None:
    one = await network.attach(sandbox_spec("one", published(8080)))
    with answering(one.namespace_path, 80):
        assert await from_inside(world, NODE, 8080) == WORLD  # the pod sees who is asking
        with pytest.raises(OSError, match=r"."):
            await from_inside(world, NODE, 80, timeout=0.5)
        within(world, lambda: command("ip", "route", "add", "10.118.0.0/16", "via", NODE))
        with pytest.raises(OSError, match=r"."):
            await from_inside(world, four(one), 80, timeout=0.5)
        within(world, lambda: command("ip", "route", "del", "10.118.0.0/16"))


async def test_a_published_port_answers_on_every_way_to_the_node(network: BridgeNetwork) -> None:
    one = await network.attach(sandbox_spec("one", published(8080)))
    other = await network.attach(sandbox_spec("other"))
    with answering(one.namespace_path, 80):
        for address in ("127.0.0.1", "127.0.0.9", NODE, GATEWAY):
            assert await from_node(address, 8080)
        for address in (NODE, GATEWAY):
            assert await from_inside(other.namespace_path, address, 8080)
            assert await from_inside(one.namespace_path, address, 8080)  # itself, through the node


async def test_a_published_port_answers_over_ipv6(network: BridgeNetwork, world: Path) -> None:
    one = await network.attach(sandbox_spec("one", published(8080)))
    other = await network.attach(sandbox_spec("other"))
    with answering(one.namespace_path, 80, six=True):
        assert await from_inside(world, NODE6, 8080) == WORLD6
        with pytest.raises(ConnectionRefusedError):  # never forwarded, and no time lost on it
            await from_node("::1", 8080)
        assert await from_node(NODE6, 8080)
        assert await from_inside(other.namespace_path, NODE6, 8080)
        assert await from_inside(one.namespace_path, NODE6, 8080)


async def test_udp_ports_and_ports_of_one_address(network: BridgeNetwork, world: Path) -> None:
    one = await network.attach(sandbox_spec("one", published(5353, 53, protocol="udp")))
    two = await network.attach(sandbox_spec("two", published(8080, 80, "127.0.0.1"), published(8081, 80, NODE)))
    with answering(one.namespace_path, 53, udp=True):
        assert await from_inside(world, NODE, 5353, udp=True) == WORLD
        assert await from_node("127.0.0.1", 5353, udp=True)
    with answering(two.namespace_path, 80):
        assert await from_node("127.0.0.1", 8080)
        assert await from_inside(world, NODE, 8081) == WORLD
        for address, port in ((NODE, 8080), ("127.0.0.1", 8081)):
            with pytest.raises(ConnectionRefusedError):
                await from_node(address, port)
        with pytest.raises(ConnectionRefusedError):
            await from_inside(world, NODE, 8080)


async def test_sandboxes_do_not_reach_the_nodes_loopback(network: BridgeNetwork) -> None:
    one = await network.attach(sandbox_spec("one"))
    with socket.create_server(("127.0.0.1", 7000)):
        within(one.namespace_path, lambda: command("ip", "route", "replace", "local", "127.0.0.0/8", "dev", "lo"))
        within(one.namespace_path, lambda: command("ip", "address", "flush", "dev", "lo"))
        within(one.namespace_path, lambda: command("ip", "route", "flush", "table", "local", "127.0.0.0/8"))
        within(one.namespace_path, lambda: sysctls.write("ipv4/conf/eth0/route_localnet", "1"))
        within(one.namespace_path, lambda: command("ip", "route", "add", "127.0.0.1/32", "via", GATEWAY, "dev", "eth0"))
        with pytest.raises(TimeoutError):
            await from_inside(one.namespace_path, "127.0.0.1", 7000, timeout=0.5)


async def test_a_port_of_another_sandbox_is_refused(network: BridgeNetwork, tmp_path: Path) -> None:
    await network.attach(sandbox_spec("one", published(8080)))
    before = inventory(tmp_path)
    with pytest.raises(PortInUseError, match=r"8080/tcp is held by sandbox one \(default/one\)"):
        await network.attach(sandbox_spec("two", published(8080)))
    assert inventory(tmp_path) == before
    await network.detach(SandboxId("one"))
    await network.attach(sandbox_spec("two", published(8080)))


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
async def test_a_port_of_a_program_is_refused(network: BridgeNetwork, tmp_path: Path, protocol: str) -> None:
    before = inventory(tmp_path)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM) as program:
        program.bind(("127.0.0.1", 8080))
        if protocol == "tcp":
            program.listen()
        with pytest.raises(PortInUseError, match=rf"8080/{protocol} is held by .*\(pid {os.getpid()}\)"):
            await network.attach(sandbox_spec("one", published(8080, protocol=protocol)))
    assert inventory(tmp_path) == before
    await network.attach(sandbox_spec("one", published(8080, protocol=protocol)))


async def test_port_53_can_be_published_beside_our_own_name_server(network: BridgeNetwork, world: Path) -> None:
    one = await network.attach(sandbox_spec("one", published(53, 53, protocol="udp")))
    await network.set_names({"one.default.svc": one.addresses})
    with answering(one.namespace_path, 53, udp=True):
        assert await from_inside(world, NODE, 53, udp=True) == WORLD
        assert await resolve(one, "one.default.svc") == [four(one)]


async def test_the_same_spec_gives_the_same_and_another_is_refused(network: BridgeNetwork, tmp_path: Path) -> None:
    first = await network.attach(sandbox_spec("one", published(8080)))
    before = inventory(tmp_path)
    assert await network.attach(sandbox_spec("one", published(8080))) == first
    assert inventory(tmp_path) == before
    with pytest.raises(AlreadyExistsError, match="another specification"):
        await network.attach(sandbox_spec("one"))
    with pytest.raises(ProviderError, match="default/one is attached as sandbox one"):
        await network.attach(sandbox_spec("two", owner="default/one"))


async def test_a_namespace_that_was_taken_away_is_made_anew(network: BridgeNetwork) -> None:
    first = await network.attach(sandbox_spec("one"))
    command("umount", str(first.namespace_path))
    assert await network.list() == []
    assert await network.attach(sandbox_spec("one")) == first
    await ping(first.namespace_path, GATEWAY)


async def test_addresses_stick_to_their_owner(make: Callable[..., BridgeNetwork]) -> None:
    provider = make()
    async with provider:
        one = await provider.attach(sandbox_spec("one-1", owner="default/one"))
        await provider.detach(SandboxId("one-1"))
        await provider.attach(sandbox_spec("two"))
        again = await provider.attach(sandbox_spec("one-2", owner="default/one"))
        assert again.addresses == one.addresses
        await provider.detach(SandboxId("one-2"))
    async with provider:
        assert (await provider.attach(sandbox_spec("one-3", owner="default/one"))).addresses == one.addresses
        with pytest.raises(ProviderError, match="in use by sandbox one-3"):
            await provider.release("default/one")
        await provider.detach(SandboxId("one-3"))
        await provider.release("default/one")
        await provider.release("default/nobody")
        assert (await provider.attach(sandbox_spec("one-4", owner="default/one"))).addresses != one.addresses
    await provider.purge()


async def test_sandboxes_outlive_the_server(make: Callable[..., BridgeNetwork], world: Path) -> None:
    async with make() as first:
        one = await first.attach(sandbox_spec("one", published(8080)))
        two = await first.attach(sandbox_spec("two"))
    with answering(one.namespace_path, 80):
        assert await from_inside(world, NODE, 8080) == WORLD
        await ping(two.namespace_path, four(one))
        async with make() as second:
            assert sorted(await second.list(), key=lambda n: n.sandbox) == [one, two]
            assert await from_inside(world, NODE, 8080) == WORLD
            with pytest.raises(PortInUseError):
                await second.attach(sandbox_spec("three", published(8080)))
            await second.detach(SandboxId("one"))
            assert await second.list() == [two]
        await make().purge()


async def test_names_resolve_inside_a_sandbox_as_programs_ask(network: BridgeNetwork) -> None:
    one, two = await network.attach(sandbox_spec("one")), await network.attach(sandbox_spec("two"))
    with pytest.raises(AssertionError, match="EAI_AGAIN"):  # until the names are known
        await resolve(one, "mariadb.default.svc")
    await network.set_names({f"mariadb.{zone}": two.addresses for zone in ("default.svc", "nanocloud.local")})
    for name in (
        "mariadb",
        "mariadb.default",
        "mariadb.default.svc",
        "mariadb.nanocloud.local",
        "MariaDB.Default.svc.",
    ):
        assert await resolve(one, name) == [four(two)], name
    assert await resolve(one, "mariadb", "AF_INET6") == [six(two)]
    with pytest.raises(AssertionError, match="EAI_NONAME"):
        await resolve(one, "unknown.default.svc")
    await network.set_names({"mariadb.default.svc": [IPv4Address("10.118.0.99")]})
    assert await resolve(one, "mariadb") == ["10.118.0.99"]


async def test_names_of_the_world_come_from_the_nodes_resolver(make: Callable[..., BridgeNetwork]) -> None:
    import dnslib

    async def answer(upstream: Any) -> None:
        while True:
            packet, peer = await upstream.recvfrom(4096)
            reply = dnslib.DNSRecord.parse(packet).reply()
            if reply.q.qtype == dnslib.QTYPE.A:
                reply.add_answer(dnslib.RR(reply.q.qname, rdata=dnslib.A("192.0.2.80")))
            await upstream.sendto(bytes(reply.pack()), peer)

    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as upstream:
        await upstream.bind(("127.0.0.53", 53))
        async with make(upstream=("127.0.0.53",)) as provider, trio.open_nursery() as nursery:
            nursery.start_soon(answer, upstream)
            one = await provider.attach(sandbox_spec("one"))
            await provider.set_names({})
            assert await resolve(one, "www.example.com") == ["192.0.2.80"]
            nursery.cancel_scope.cancel()
        await provider.purge()


async def resolve(sandbox: SandboxNetwork, name: str, family: str = "AF_INET") -> list[str]:
    """What a program in the sandbox gets from getaddrinfo, with the resolv.conf that the kubelet writes."""
    conf = sandbox.namespace_path.parent.parent / f"resolv-{sandbox.sandbox}.conf"
    servers = "".join(f"nameserver {server}\n" for server in sandbox.nameservers)
    conf.write_text(f"{servers}search default.svc nanocloud.local svc\noptions ndots:2\n")
    code = (
        "import socket, sys\n"
        "try: print(*sorted({i[4][0] for i in socket.getaddrinfo(sys.argv[1], 0, getattr(socket, sys.argv[2]))}))\n"
        "except socket.gaierror as e: sys.exit({socket.EAI_NONAME: 'EAI_NONAME', socket.EAI_AGAIN: 'EAI_AGAIN',"
        " socket.EAI_NODATA: 'EAI_NODATA'}.get(e.errno, str(e)))\n"
    )
    script = f'mount --bind {conf} /etc/resolv.conf && exec nsenter --net={sandbox.namespace_path} -- "$@"'
    argv = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-S", "-c", code, name, family]
    done = await trio.run_process(argv, capture_stdout=True, capture_stderr=True, check=False)
    conf.unlink()
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().split()


async def test_twenty_times_attach_and_detach_leave_exactly_nothing(network: BridgeNetwork, tmp_path: Path) -> None:
    empty = inventory(tmp_path)
    for _ in range(20):
        await network.attach(sandbox_spec("again", published(8080), published(8081)))
        assert inventory(tmp_path) != empty
        await network.detach(SandboxId("again"))
        assert inventory(tmp_path) == empty
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(network.attach, sandbox_spec(f"p{number}", published(8000 + number)))
    assert inventory(tmp_path) == {
        "links": sorted(link_of(f"p{n}") for n in range(20)),
        "namespaces": sorted(f"p{n}" for n in range(20)),
        "mounts": 20,
        "records": sorted(f"p{n}" for n in range(20)),
        "ports": 40,
    }
    assert len({n.addresses for n in await network.list()}) == 20
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(network.detach, SandboxId(f"p{number}"))
    assert inventory(tmp_path) == empty


async def test_cancelled_calls_leave_nothing(network: BridgeNetwork, tmp_path: Path) -> None:
    empty = inventory(tmp_path)
    for _ in range(10):
        with trio.move_on_after(random.random() / 100):
            async with trio.open_nursery() as nursery:
                for number in range(12):  # more than there are threads, so that some wait for one
                    nursery.start_soon(network.attach, sandbox_spec(f"p{number}", published(8000 + number)))
        attached = {n.sandbox for n in await network.list()}
        assert inventory(tmp_path)["records"] == sorted(attached)
        assert len(inventory(tmp_path)["links"]) == inventory(tmp_path)["mounts"] == len(attached)
        with trio.move_on_after(random.random() / 100):
            async with trio.open_nursery() as nursery:
                for number in range(12):
                    nursery.start_soon(network.detach, SandboxId(f"p{number}"))
        for number in range(12):
            await network.detach(SandboxId(f"p{number}"))
        assert inventory(tmp_path) == empty


async def test_a_failed_attach_leaves_nothing(
    network: BridgeNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = inventory(tmp_path)
    for owner, name in ((veth, "create"), (rules.Rules, "publish"), (netns, "pin")):

        def fails(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fails)
            with pytest.raises(ProviderError, match=r"sandbox one: .* failed: .*No space left"):
                await network.attach(sandbox_spec("one", published(8080)))
        assert inventory(tmp_path) == empty
    await network.attach(sandbox_spec("one", published(8080)))


async def test_foreign_changes_are_mended(network: BridgeNetwork, world: Path) -> None:
    one = await network.attach(sandbox_spec("one", published(8080)))
    two = await network.attach(sandbox_spec("two"))

    async def until_it_works() -> None:
        with trio.fail_after(10), answering(one.namespace_path, 80):
            while True:
                with contextlib.suppress(OSError):
                    await ping(two.namespace_path, four(one))
                    if await from_inside(world, NODE, 8080, timeout=0.3) == WORLD:
                        return

    for harm in (
        ("nft", "flush", "ruleset"),
        ("nft", "delete", "table", "inet", "nanocloud"),
        ("nft", "flush", "chain", "inet", "nanocloud", "hostports"),
        ("ip", "link", "del", "nanocloud0"),
        ("ip", "link", "set", "nanocloud0", "down"),
        ("ip", "address", "del", f"{GATEWAY}/16", "dev", "nanocloud0"),
        ("ip", "link", "del", link_of("one")),
    ):
        command(*harm)
        await until_it_works()
    await network.set_names({"two.default.svc": two.addresses})
    assert await resolve(one, "two") == [four(two)]


async def test_attach_heals_a_table_without_waiting_for_the_watcher(network: BridgeNetwork, world: Path) -> None:
    command("nft", "delete", "table", "inet", "nanocloud")
    one = await network.attach(sandbox_spec("one", published(8080)))
    with answering(one.namespace_path, 80):
        assert await from_inside(world, NODE, 8080) == WORLD


async def test_purge_leaves_nothing_and_repeats(make: Callable[..., BridgeNetwork], tmp_path: Path) -> None:
    sysctls.write("ipv4/ip_forward", "0")
    sysctls.write("ipv6/conf/all/forwarding", "0")
    sysctls.write("ipv6/conf/ext0/accept_ra", "1")
    before = outer_inventory(tmp_path)
    await make().purge()
    assert outer_inventory(tmp_path) == before
    for _ in range(2):  # the second start must not take its own settings for the node's
        async with make() as provider:
            await provider.attach(sandbox_spec("one", published(8080)))
            assert sysctls.read("ipv4/ip_forward") == sysctls.read("ipv6/conf/all/forwarding") == "1"
            assert sysctls.read("ipv6/conf/ext0/accept_ra") == "2"
    await make().purge()
    assert outer_inventory(tmp_path) == before
    assert not any((tmp_path / part).exists() for part in ("run/netns", "run/network", "state/network"))
    await make().purge()


async def test_a_subnet_that_is_taken_is_refused(make: Callable[..., BridgeNetwork], tmp_path: Path) -> None:
    before = outer_inventory(tmp_path)
    for subnet in ("10.118.0.0/16", "10.118.7.0/24", "10.0.0.0/8"):
        command("ip", "route", "add", subnet, "dev", "ext0")
        with pytest.raises(ProviderError, match=rf"subnet 10\.118\.0\.0/16 overlaps {subnet} of interface ext0"):
            async with make():
                pass
        command("ip", "route", "del", subnet, "dev", "ext0")
    command("ip", "route", "add", "0.0.0.0/1", "dev", "ext0")  # half a default route, as VPNs set it
    async with make():
        pass
    command("ip", "route", "del", "0.0.0.0/1", "dev", "ext0")
    await make().purge()
    assert outer_inventory(tmp_path) == before


async def test_another_subnet_is_refused_while_sandboxes_are_attached(make: Callable[..., BridgeNetwork]) -> None:
    async with make() as provider:
        await provider.attach(sandbox_spec("one"))
    with pytest.raises(ProviderError, match=r"sandbox one is attached as 10\.118\.0\.2, outside subnet 10\.119"):
        async with make(subnet="10.119.0.0/16"):
            pass
    async with make() as provider:
        await provider.detach(SandboxId("one"))
    async with make(subnet="10.119.0.0/16") as provider:
        assert four(await provider.attach(sandbox_spec("one"))) == "10.119.0.2"
        assert f"inet {GATEWAY}/" not in command("ip", "address", "show", "nanocloud0")
    await make().purge()


async def test_ipv6_is_off_where_the_host_has_it_off(make: Callable[..., BridgeNetwork]) -> None:
    sysctls.write("ipv6/conf/all/disable_ipv6", "1")
    try:
        async with make() as provider:
            one = await provider.attach(sandbox_spec("one", published(8080)))
            assert [a.version for a in (*one.addresses, *one.nameservers)] == [4, 4]
            with answering(one.namespace_path, 80):
                assert await from_node("127.0.0.1", 8080)
        await provider.purge()
    finally:
        sysctls.write("ipv6/conf/all/disable_ipv6", "0")
        command("ip", "-6", "address", "add", f"{NODE6}/64", "dev", "ext0", "nodad")
    async with make(subnet6="") as provider:
        assert len((await provider.attach(sandbox_spec("one"))).addresses) == 1
    await provider.purge()


async def test_a_foreign_bridge_is_used_but_never_robbed_nor_removed(make: Callable[..., BridgeNetwork]) -> None:
    command("ip", "link", "add", "nanocloud0", "type", "bridge")
    command("ip", "address", "add", "192.0.2.1/24", "dev", "nanocloud0")
    async with make() as provider:
        await ping((await provider.attach(sandbox_spec("one"))).namespace_path, GATEWAY)
    await provider.purge()
    assert "192.0.2.1/24" in command("ip", "address", "show", "nanocloud0")
    command("ip", "link", "del", "nanocloud0")


async def test_an_interface_that_is_no_bridge_is_refused(make: Callable[..., BridgeNetwork]) -> None:
    with pytest.raises(ProviderError, match="interface ext0 exists and is no bridge"):
        async with make(bridge="ext0"):
            pass
    await make().purge()


async def test_nft_missing_names_the_package(
    make: Callable[..., BridgeNetwork], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "_ENVIRONMENT", {"PATH": "/nonexistent"})
    with pytest.raises(ProviderError, match="package nftables is missing"):
        async with make():
            pass


async def test_bad_input_never_reaches_the_host(network: BridgeNetwork, tmp_path: Path) -> None:
    empty = inventory(tmp_path)
    for bad in (
        *(sandbox_spec(name) for name in ("../x", "x" * 64, "X")),
        *(sandbox_spec("x", owner=owner) for owner in ("noslash", "a/b/c", "../b")),
        sandbox_spec("x", published(0)),
        sandbox_spec("x", published(1, 70000)),
        sandbox_spec("x", published(1, 1, protocol="sctp")),
        sandbox_spec("x", *(published(n) for n in range(1, 300))),
    ):
        with pytest.raises(InvalidError):
            await network.attach(bad)
    with pytest.raises(InvalidError):
        await network.detach(SandboxId("../../etc"))
    with pytest.raises(InvalidError):
        await network.release("../x")
    with pytest.raises(InvalidError):
        await network.set_names({"Upper.svc": ()})
    with pytest.raises(ProviderError, match="no address of this node"):
        await network.attach(sandbox_spec("x", published(8080, 80, "198.51.100.1")))
    await network.detach(SandboxId("never-attached"))
    assert inventory(tmp_path) == empty


async def test_of_many_requests_the_first_that_is_refused_is_named() -> None:
    with netlink.Connection() as node:
        lo = socket.if_nametoindex("lo")
        with pytest.raises(OSError, match=r"setting address 10\.8\.0\.1: No such device") as caught:
            node.ask(
                netlink.set_up(lo),
                netlink.set_address(9999, IPv4Address("10.8.0.1"), 24),
                netlink.set_up(9998),
                netlink.set_address(lo, IPv4Address("127.0.0.8"), 32),
            )
        assert caught.value.errno == 19
        assert "127.0.0.8" in command("ip", "address", "show", "lo")  # the rest was carried out
        assert node.find("lo") == (lo, True, None)  # and no answer was left behind
        assert node.find("nolink") is None
    command("ip", "address", "del", "127.0.0.8/32", "dev", "lo")
