"""The name server on loopback sockets, with resolvers of the test's own upstream."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import dnslib
import pytest
import trio

from nanocloud.errors import ProviderError
from nanocloud_cni_bridge import dns_server, dns_upstream
from nanocloud_cni_bridge.dns_server import DnsServer
from nanocloud_cni_bridge.dns_upstream import Resolvers, Upstream
from nanocloud_cni_bridge.dns_zone import Zone

LOOPBACK = IPv4Network("127.0.0.0/8")
HERE = IPv4Address("127.0.0.1")
MANY = [IPv4Address(f"10.0.0.{n}") for n in range(1, 101)]
Behaviour = Callable[[dnslib.DNSRecord], bytes | None]


def free_port() -> int:
    with socket.socket() as tcp:
        tcp.bind(("127.0.0.1", 0))
        return int(tcp.getsockname()[1])


@asynccontextmanager
async def serving(
    *, resolvers: tuple[str, ...] = (), upstream_port: int = 1, networks: tuple[IPv4Network, ...] = (LOOPBACK,)
) -> AsyncIterator[int]:
    zone = Zone({"db.default.svc": [HERE], "many.default.svc": MANY}, networks)
    source = Resolvers(resolvers, (), Path("/nonexistent"))
    server, port = DnsServer(zone, Upstream(source, port=upstream_port), networks), free_port()
    with server.bind([HERE], port):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve)
            yield port
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def resolver(behaviour: Behaviour, *, address: str = "127.0.0.1", port: int = 0) -> AsyncIterator[int]:
    """A resolver that does as told, over UDP and TCP; None: silence."""
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, trio.socket.socket() as tcp:
        await udp.bind((address, port))
        port = udp.getsockname()[1]
        await tcp.bind((address, port))
        tcp.listen()

        async def over_udp() -> None:
            while True:
                packet, peer = await udp.recvfrom(65535)
                if reply := behaviour(dnslib.DNSRecord.parse(packet)):
                    await udp.sendto(reply, peer)

        async def over_tcp() -> None:
            while True:
                connection, _ = await tcp.accept()
                with connection:
                    size = int.from_bytes(await connection.recv(2), "big")
                    reply = behaviour(dnslib.DNSRecord.parse(await connection.recv(size)))
                    if reply:
                        await connection.send(len(reply).to_bytes(2, "big") + reply)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(over_udp)
            nursery.start_soon(over_tcp)
            yield port
            nursery.cancel_scope.cancel()


def answering(address: str) -> Behaviour:
    def behave(record: dnslib.DNSRecord) -> bytes:
        reply = record.reply()
        reply.add_answer(dnslib.RR(record.q.qname, rdata=dnslib.A(address), ttl=60))
        return bytes(reply.pack())

    return behave


def failing(code: int) -> Behaviour:
    def behave(record: dnslib.DNSRecord) -> bytes:
        reply = record.reply()
        reply.header.rcode = code
        return bytes(reply.pack())

    return behave


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_upstream, "ATTEMPT_SECONDS", 0.1)


async def ask(port: int, name: str, kind: str = "A", source: str = "127.0.0.1") -> dnslib.DNSRecord:
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        await sock.bind((source, 0))
        await sock.connect(("127.0.0.1", port))
        question = dnslib.DNSRecord.question(name, kind)
        await sock.send(bytes(question.pack()))
        found = dnslib.DNSRecord.parse(await sock.recv(65535))
        assert found.header.id == question.header.id
        return found


async def ask_tcp(stream: trio.SocketStream, name: str) -> dnslib.DNSRecord:
    packet = bytes(dnslib.DNSRecord.question(name).pack())
    await stream.send_all(len(packet).to_bytes(2, "big") + packet)
    reply = await dns_upstream.read_message(stream, 65535)
    assert reply is not None
    return dnslib.DNSRecord.parse(reply)


def addresses(record: dnslib.DNSRecord) -> list[str]:
    return [str(rr.rdata) for rr in record.rr]


async def test_our_names_are_answered_without_a_resolver() -> None:
    with trio.fail_after(5):
        async with serving() as port:
            assert addresses(await ask(port, "db.default.svc")) == ["127.0.0.1"]
            assert (await ask(port, "nobody.default.svc")).header.rcode == dnslib.RCODE.NXDOMAIN


async def test_without_a_resolver_other_names_fail_at_once() -> None:
    with trio.fail_after(1):
        async with serving() as port:
            assert (await ask(port, "example.com")).header.rcode == dnslib.RCODE.SERVFAIL


async def test_other_names_are_asked_upstream_and_come_back_with_the_askers_id() -> None:
    seen: list[int] = []

    def behave(record: dnslib.DNSRecord) -> bytes:
        seen.append(record.header.id)
        return answering("192.0.2.9")(record) or b""

    with trio.fail_after(5):
        async with resolver(behave) as up, serving(resolvers=("127.0.0.1",), upstream_port=up) as port:
            for _ in range(8):
                assert addresses(await ask(port, "Example.com")) == ["192.0.2.9"]
    assert len(set(seen)) > 1  # a fresh id each time


async def test_forged_replies_are_ignored() -> None:
    def behave(record: dnslib.DNSRecord) -> bytes:
        record.header.id ^= 0x5A5A
        return answering("192.0.2.66")(record) or b""

    with trio.fail_after(10):
        async with resolver(behave) as up, serving(resolvers=("127.0.0.1",), upstream_port=up) as port:
            assert (await ask(port, "example.com")).header.rcode == dnslib.RCODE.SERVFAIL


@pytest.mark.parametrize("first", [failing(2), failing(5), lambda _: None])
async def test_the_next_resolver_is_asked_and_remembered(first: Behaviour) -> None:
    asked: list[str] = []

    def noting(record: dnslib.DNSRecord) -> bytes | None:
        asked.append("first")
        return first(record)

    with trio.fail_after(10):
        async with (
            resolver(noting) as up,
            resolver(answering("192.0.2.9"), address="127.0.0.2", port=up),
            serving(resolvers=("127.0.0.1", "127.0.0.2"), upstream_port=up) as port,
        ):
            assert addresses(await ask(port, "example.com")) == ["192.0.2.9"]
            assert addresses(await ask(port, "example.com")) == ["192.0.2.9"]
    assert asked == ["first"]


async def test_nxdomain_from_upstream_is_an_answer() -> None:
    with trio.fail_after(5):
        async with resolver(failing(3)) as up, serving(resolvers=("127.0.0.1",), upstream_port=up) as port:
            assert (await ask(port, "nobody.example.com")).header.rcode == dnslib.RCODE.NXDOMAIN


async def test_truncated_answers_come_whole_over_tcp_ours_and_upstreams() -> None:
    with trio.fail_after(5):
        async with resolver(answering("192.0.2.9")) as up, serving(resolvers=("127.0.0.1",), upstream_port=up) as port:
            assert (await ask(port, "many.default.svc")).header.tc == 1
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                assert len(addresses(await ask_tcp(stream, "many.default.svc"))) == 100
                assert addresses(await ask_tcp(stream, "example.com")) == ["192.0.2.9"]


async def test_an_upstream_reply_larger_than_the_asker_takes_is_cut() -> None:
    def behave(record: dnslib.DNSRecord) -> bytes:
        reply = record.reply()
        for n in range(100):
            reply.add_answer(dnslib.RR(record.q.qname, rdata=dnslib.A(f"192.0.2.{n}")))
        return bytes(reply.pack())

    with trio.fail_after(5):
        async with resolver(behave) as up, serving(resolvers=("127.0.0.1",), upstream_port=up) as port:
            found = await ask(port, "example.com")
            assert (found.header.tc, found.rr) == (1, [])


async def test_strangers_are_not_answered() -> None:
    with trio.fail_after(5), socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as stranger:
        async with serving(networks=(IPv4Network("127.0.0.2/32"),)) as port:
            stranger.sendto(bytes(dnslib.DNSRecord.question("db.default.svc").pack()), ("127.0.0.1", port))
            await ask(port, "db.default.svc", source="127.0.0.2")  # asked later and answered: the first never will be
            with pytest.raises(BlockingIOError):
                stranger.recv(1)
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                assert await stream.receive_some(1) == b""


async def test_one_asker_cannot_use_up_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_server, "MAX_CONNECTIONS_EACH", 2)
    with trio.fail_after(5):
        async with serving() as port:
            streams = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(2)]
            for stream in streams:
                await ask_tcp(stream, "db.default.svc")
            async with await trio.open_tcp_stream("127.0.0.1", port) as third:
                assert await third.receive_some(1) == b""
            await streams[0].aclose()
            while True:  # until the server has noticed
                async with await trio.open_tcp_stream("127.0.0.1", port) as again:
                    try:
                        await ask_tcp(again, "db.default.svc")
                        break
                    except (AssertionError, trio.BrokenResourceError):
                        continue
            await streams[1].aclose()


async def test_garbage_leaves_the_server_alive() -> None:
    with trio.fail_after(5):
        async with serving() as port:
            with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                for packet in (b"", b"\0", b"\xff" * 512, b"\0" * 12, b"\0" * 6000):
                    await sock.sendto(packet, ("127.0.0.1", port))
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"\xff\xff")
                assert await stream.receive_some(1) == b""
            assert addresses(await ask(port, "db.default.svc")) == ["127.0.0.1"]


async def test_a_taken_port_names_the_program() -> None:
    async with serving() as port:
        other = DnsServer(Zone({}, ()), Upstream(Resolvers((), ())), ())
        with pytest.raises(ProviderError, match=rf"127\.0\.0\.1 port {port}/udp: .* \(pid \d+\) holds it"):
            other.bind([HERE], port).__enter__()


def test_resolvers_of_the_node_follow_its_file(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(
        "# c\nsearch x\nnameserver 10.118.0.1\nnameserver 192.0.2.1 \nnameserver nonsense\nnameserver ::1\n"
    )
    resolvers = Resolvers((), (IPv4Address("10.118.0.1"),), file)
    assert resolvers.current() == ("192.0.2.1", "::1")
    file.write_text("nameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\nnameserver 192.0.2.5\n")
    assert resolvers.current() == ("192.0.2.2", "192.0.2.3", "192.0.2.4")
    file.unlink()
    assert resolvers.current() == ()
    assert Resolvers(("192.0.2.7",), (), file).current() == ("192.0.2.7",)
