"""The server's side of TLS, against trio's on the client's side."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio
import trustme

from nanocloud.apiserver.connection import Connection
from nanocloud.apiserver.tls import TlsStream


@attrs.define
class Pair:
    server: TlsStream
    client: trio.SSLStream[trio.SocketStream]


@asynccontextmanager
async def sockets() -> AsyncIterator[tuple[trio.socket.SocketType, trio.SocketStream]]:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with (
        listener,
        await trio.open_tcp_stream(*listener.socket.getsockname()) as client,
        await listener.accept() as accepted,
    ):
        yield accepted.socket, client


@asynccontextmanager
async def connected(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> AsyncIterator[Pair]:
    ca = trustme.CA()
    ours, theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    theirs.verify_flags &= ~ssl.VERIFY_X509_STRICT
    ca.issue_cert("127.0.0.1").configure_cert(ours)
    ca.configure_trust(theirs)
    theirs.maximum_version = version
    with trio.fail_after(20):
        async with sockets() as (socket, stream):
            # Strict about the end: one that TLS does not announce is an error.
            pair = Pair(TlsStream(socket, ours), trio.SSLStream(stream, theirs, server_hostname="127.0.0.1"))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pair.server.shake_hands)
                nursery.start_soon(pair.client.do_handshake)
            yield pair


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_both_directions_work_at_once_and_end_in_order(version: ssl.TLSVersion) -> None:
    up, down = bytes(range(256)) * 8000, b"down" * 500_000
    received = {"up": b"", "down": b""}
    async with connected(version) as pair:

        async def serve() -> None:
            while len(received["up"]) < len(up):
                received["up"] += await pair.server.receive_some()

        async def read() -> None:
            while len(received["down"]) < len(down):
                received["down"] += await pair.client.receive_some()

        async with trio.open_nursery() as nursery:
            for work in (serve, read, partial(pair.client.send_all, up), partial(pair.server.send_all, down)):
                nursery.start_soon(work)
        assert received == {"up": up, "down": down}
        await pair.server.send_eof()
        assert await pair.client.receive_some() == b""
        with pytest.raises(trio.ClosedResourceError):
            await pair.server.send_all(b"more")


async def test_the_end_is_heard_announced_or_not() -> None:
    async with connected() as pair:
        await pair.client.send_all(b"last")
        await pair.client.aclose()
        assert [await pair.server.receive_some() for _ in range(2)] == [b"last", b""]
    async with connected() as pair:
        await pair.client.send_all(b"last")
        await pair.client.transport_stream.aclose()
        assert [await pair.server.receive_some() for _ in range(2)] == [b"last", b""]


async def test_a_cancelled_receive_loses_nothing() -> None:
    async with connected() as pair:
        with trio.move_on_after(0):
            await pair.server.receive_some()
        await pair.client.send_all(b"kept")
        assert await pair.server.receive_some() == b"kept"


async def test_a_cancelled_send_breaks_the_stream() -> None:
    async with connected() as pair:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.server.send_all, bytes(50_000_000))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        with pytest.raises(trio.BrokenResourceError):
            await pair.server.send_all(b"after a hole")


@pytest.mark.parametrize("records", [1, 20])
async def test_others_get_a_turn_between_requests_that_come_at_once(records: int) -> None:
    turns, seen = 0, list[int]()

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        seen.append(turns)
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with connected() as pair:
        for _ in range(records):
            await pair.client.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * (20 // records))
        await pair.client.send_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            await Connection(answer, pair.server, state={"closing": trio.Event()}).run()
            nursery.cancel_scope.cancel()
    assert len(seen) == 21
    # Who goes first in a turn is left to chance, so two in a row may see the same.
    assert all(later > earlier for earlier, later in zip(seen, seen[2:], strict=False))


async def test_what_is_no_tls_breaks_the_stream() -> None:
    async with connected() as pair:
        await pair.client.transport_stream.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(trio.BrokenResourceError, match="broke TLS"):
            await pair.server.receive_some()


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01"])
async def test_a_handshake_that_is_none_is_over(data: bytes) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with trio.fail_after(10):
        async with sockets() as (socket, client):
            await client.send_all(data)
            await client.send_eof()
            with pytest.raises(trio.BrokenResourceError):
                await TlsStream(socket, context).shake_hands()
