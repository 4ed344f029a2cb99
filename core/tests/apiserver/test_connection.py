"""One connection: what goes in and out as bytes, around small ASGI applications, in virtual time."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_pair

from nanocloud.apiserver.connection import HEAD_SECONDS, STALL_SECONDS, Connection
from nanocloud.apiserver.http_requests import MAX_HEAD_BYTES
from nanocloud.apiserver.idle import IDLE_SECONDS, OpenConnections

sys.path.insert(0, str(Path(__file__).parent))  # the module beside this one

from wires import MemoryWire

App = Callable[[Any, Any, Any], Awaitable[None]]
GET = b"GET / HTTP/1.1\r\nHost: node\r\n\r\n"


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(data: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def read_body(receive: Any) -> bytes:
    data = b""
    while (message := await receive())["type"] == "http.request":
        data += message["body"]
        if not message["more_body"]:
            return data
    raise ConnectionError("the client left")


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the method, the path and the body."""
    data = await read_body(receive)
    await send(start())
    await send(body(f"{scope['method']} {scope['path']} ".encode() + data))


async def deaf(scope: Any, receive: Any, send: Any) -> None:
    """Answers without reading the body."""
    await send(start(401))
    await send(body(b"no"))


@attrs.define
class Client:
    stream: trio.StapledStream[Any, Any]
    connection: Connection
    closing: trio.Event
    over: trio.Event = attrs.field(factory=trio.Event)
    got: bytes = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def until(self, end: bytes) -> bytes:
        while end not in self.got:
            data = await self.stream.receive_some()
            assert data, f"the server left after {self.got!r}"
            self.got += bytes(data)
        found, _, self.got = self.got.partition(end)
        return found + end

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of one answer with a length."""
        lines = (await self.until(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:-2])
        length = int(headers["content-length"])
        while len(self.got) < length:
            data = await self.stream.receive_some()
            assert data
            self.got += bytes(data)
        found, self.got = self.got[:length], self.got[length:]
        return int(lines[0].split()[1]), headers, found

    async def rest(self) -> bytes:
        """All that the server sends until it ends."""
        while data := await self.stream.receive_some():
            self.got += bytes(data)
        return self.got


@asynccontextmanager
async def connected(app: App) -> AsyncIterator[Client]:
    ours, theirs = memory_stream_pair()
    closing = trio.Event()
    connection = Connection(app, MemoryWire(theirs), state={"closing": closing, "tls": {"der": None}})
    client = Client(ours, connection, closing)

    connections = OpenConnections()

    async def run() -> None:
        with connections.holding(connection):
            await connection.run()
        await theirs.aclose()
        client.over.set()

    with trio.fail_after(10_000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connections.end_idle)
            nursery.start_soon(run)
            yield client
            nursery.cancel_scope.cancel()


async def test_requests_follow_each_other_also_when_they_come_at_once() -> None:
    async with connected(echo) as client:
        await client.send(b"\r\n" + GET)
        assert (await client.answer())[2] == b"GET / "
        post = b"POST /p HTTP/1.1\r\nHost: node\r\nContent-Length: 3\r\n\r\nabc"
        chunked = b"PUT /c HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n1\r\nf\r\n0\r\n\r\n"
        await client.send((post + chunked + GET) * 3)
        for _ in range(3):
            assert [(await client.answer())[2] for _ in range(3)] == [b"POST /p abc", b"PUT /c def", b"GET / "]


async def test_a_request_may_arrive_byte_by_byte() -> None:
    async with connected(echo) as client:
        for (
            byte
        ) in b"POST /p HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: x\r\n\r\n":
            await client.send(bytes([byte]))
        assert (await client.answer())[2] == b"POST /p abc"


async def test_the_client_may_end_the_connection() -> None:
    async with connected(echo) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n" + GET)
        _, headers, data = await client.answer()
        assert (headers["connection"], data) == ("close", b"GET / ")
        assert await client.rest() == b""


async def test_http_1_0_gets_one_answer_that_ends_with_the_connection() -> None:
    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await send(body(b"one ", more=True))
        await send(body(b"two"))

    async with connected(stream) as client:
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        head, _, data = (await client.rest()).partition(b"\r\n\r\n")
        assert data == b"one two"
        assert b"chunked" not in head
        assert b"connection: close" in head


async def test_a_stream_is_chunked_and_its_first_piece_may_be_empty() -> None:
    more = trio.Event()

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await send(start(200, (b"content-type", b"text/plain")))
        await send(body(b"", more=True))
        await more.wait()
        await send(body(b"0123456789abcdef", more=True))
        await send(body(b"end"))

    async with connected(stream) as client:
        await client.send(GET)
        assert b"transfer-encoding: chunked\r\n" in await client.until(b"\r\n\r\n")
        more.set()
        assert await client.until(b"0\r\n\r\n") == b"10\r\n0123456789abcdef\r\n3\r\nend\r\n0\r\n\r\n"
        await client.send(GET)
        assert await client.until(b"0\r\n\r\n")


async def test_head_is_answered_without_its_body() -> None:
    async with connected(echo) as client:
        await client.send(b"HEAD /h HTTP/1.1\r\nHost: node\r\n\r\n" + GET)
        assert b"content-length: 8\r\n" in await client.until(b"\r\n\r\n")
        assert (await client.answer())[2] == b"GET / "


async def test_no_content_has_neither_body_nor_length() -> None:
    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        await send(start(204))
        await send(body())

    async with connected(nothing) as client:
        await client.send(GET + GET)
        for _ in range(2):
            assert b"content-length" not in await client.until(b"\r\n\r\n")
        assert client.got == b""


async def test_the_body_is_asked_for_when_the_client_waits_for_that() -> None:
    head = b"POST / HTTP/1.1\r\nHost: node\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    async with connected(echo) as client:
        await client.send(head)
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"abc")
        assert (await client.answer())[2] == b"POST / abc"
        await client.send(head + b"abc")  # a client that does not wait needs no word
        assert (await client.answer())[2] == b"POST / abc"
    async with connected(deaf) as client:
        await client.send(head)
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (401, "close")  # whether the body comes now, nobody can tell


async def test_a_body_that_was_not_read_is_no_request() -> None:
    smuggled = b"POST / HTTP/1.1\r\nHost: node\r\nContent-Length: %d\r\n\r\n%b" % (len(GET), GET)
    async with connected(deaf) as client:
        await client.send(smuggled)
        assert (await client.answer())[1].get("connection") is None  # all of it was there, and was dropped
        await client.send(smuggled[:-1])
        assert (await client.answer())[1]["connection"] == "close"
        assert await client.rest() == b""


async def test_a_malformed_chunk_ends_the_request_and_the_connection() -> None:
    async with connected(echo) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n" + GET)
        assert (await client.answer())[:2][0] == 400
        assert await client.rest() == b""


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * MAX_HEAD_BYTES, 431),
        (b"x" * MAX_HEAD_BYTES, 431),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", 400),
    ],
)
async def test_what_is_not_understood_is_answered_and_ends_the_connection(request_: bytes, code: int) -> None:
    async with connected(echo) as client:
        await client.send(request_)
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (code, "close")
        assert await client.rest() == b""


async def test_an_upgrade_to_something_else_is_passed_over() -> None:
    async with connected(echo) as client:
        await client.send(b"POST /exec HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
        assert (await client.answer())[2] == b"POST /exec "


async def test_clients_have_so_long_and_no_longer(autojump_clock: MockClock) -> None:
    async def seconds(*pieces: bytes, between: float = 1) -> float:
        began = trio.current_time()
        async with connected(echo) as client:
            for piece in pieces:
                await client.send(piece)
                await trio.sleep(between)
            await client.over.wait()
        return trio.current_time() - began

    assert await seconds() == IDLE_SECONDS
    assert await seconds(b"GET") == HEAD_SECONDS
    assert await seconds(b"GET", b" / HTTP/1.1\r\n", b"Host: ") == HEAD_SECONDS
    assert await seconds(GET, b"\r\n") == IDLE_SECONDS
    assert await seconds(GET, GET, GET, between=100) == 200 + IDLE_SECONDS


async def test_each_of_many_connections_has_its_own_time(autojump_clock: MockClock) -> None:
    connections, ended = OpenConnections(), list[float]()

    async def run(begins: float, wire: MemoryWire) -> None:
        await trio.sleep(begins)
        connection = Connection(echo, wire, state={"closing": trio.Event()})
        with connections.holding(connection):
            await connection.run()
        ended.append(trio.current_time() - start_time)

    start_time = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connections.end_idle)
        async with trio.open_nursery() as served:
            pairs = [memory_stream_pair() for _ in range(3)]
            for begins, (_, theirs) in zip((0, 50, 500), pairs, strict=True):
                served.start_soon(run, begins, MemoryWire(theirs))
        nursery.cancel_scope.cancel()
    assert ended == [IDLE_SECONDS, 50 + IDLE_SECONDS, 500 + IDLE_SECONDS]


async def test_a_client_that_takes_nothing_is_left(autojump_clock: MockClock) -> None:
    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        while True:
            await send(body(b"x" * 100_000, more=True))

    ours, theirs = trio.testing.lockstep_stream_pair()
    connection = Connection(endless, MemoryWire(theirs), state={"closing": trio.Event()})
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, GET)
        await connection.run()
    assert trio.current_time() - began == STALL_SECONDS


async def test_an_application_may_take_its_time(autojump_clock: MockClock) -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep(3600)
        await echo(scope, receive, send)

    async with connected(slow) as client:
        await client.send(GET)
        assert (await client.answer())[2] == b"GET / "


async def test_an_application_learns_that_its_client_left() -> None:
    seen: list[str] = []

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await send(body(b"", more=True))
        while (message := await receive())["type"] == "http.request":
            seen.append("request")
        seen.append(message["type"])

    async with connected(waits) as client:
        await client.send(GET)
        await client.until(b"\r\n\r\n")
        await client.stream.send_stream.aclose()
        await client.over.wait()
    assert seen == ["request", "http.disconnect"]


async def test_writing_to_a_client_that_left_cancels_the_request() -> None:
    cleaned = trio.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        try:
            await send(start())
            while True:
                await send(body(b"x", more=True))
        finally:
            cleaned.set()

    async with connected(endless) as client:
        await client.send(GET)
        await client.until(b"\r\n\r\n")
        await client.stream.aclose()
        await cleaned.wait()
        await client.over.wait()


async def test_the_next_request_waits_while_an_application_listens_for_the_end() -> None:
    async def listens(scope: Any, receive: Any, send: Any) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_body, receive)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await send(start())
        await send(body(scope["path"].encode()))

    async with connected(listens) as client:
        await client.send(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        await client.send(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert [(await client.answer())[2] for _ in range(2)] == [b"/1", b"/2"]


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [start()],
        [body(b"before its start")],
        [start(), start()],
        [start(200, (b"x", b"a\r\nSet-Cookie: b")), body()],
        [start(200, (b"content-length", b"5")), body(b"no")],
    ],
)
async def test_a_broken_application_is_answered_for(messages: list[dict[str, Any]]) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    async with connected(broken) as client:
        await client.send(GET + GET)
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (500, "close")
        assert await client.rest() == b""


async def test_an_answer_that_breaks_off_ends_the_connection() -> None:
    async def breaks(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await send(body(b"some", more=True))
        raise ValueError

    async with connected(breaks) as client:
        await client.send(GET + GET)
        assert (await client.rest()).endswith(b"4\r\nsome\r\n")  # and no last chunk


async def test_an_answer_that_was_cut_off_is_followed_by_no_other(autojump_clock: MockClock) -> None:
    async def cuts(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        if scope["path"] == "/cut":
            with trio.CancelScope() as timeout:
                timeout.cancel()
                await send(body(bytes(1_000_000), more=True))
        await send(body(b"last"))

    async with connected(cuts) as client:
        await client.send(GET.replace(b"/ ", b"/cut ") + GET)
        assert (await client.rest()).count(b"last") <= 1


async def test_a_stop_ends_idle_connections_at_once_and_others_with_their_answer() -> None:
    go = trio.Event()

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        await echo(scope, receive, send)

    async with connected(waits) as idle, connected(waits) as busy:
        await busy.send(GET)
        await trio.testing.wait_all_tasks_blocked()
        for client in (idle, busy):
            client.closing.set()
            client.connection.stop()
        assert await idle.rest() == b""
        go.set()
        _, headers, data = await busy.answer()
        assert (headers["connection"], data) == ("close", b"GET / ")


@given(
    st.lists(
        st.sampled_from(
            [
                GET,
                GET[:-1],
                b"\r\n",
                b"\n",
                b"5\r\n",
                b"0\r\n\r\n",
                b"\x00",
                b"Content-Length: 4\r\n",
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
                b"Connection: upgrade\r\n",
            ]
        ),
        max_size=8,
    )
)
def test_no_bytes_bring_a_connection_down(pieces: list[bytes]) -> None:
    async def main() -> None:
        async with connected(echo) as client:
            await client.send(b"".join(pieces))
            await client.stream.send_stream.aclose()
            got = await client.rest()
        assert got == b"" or got.startswith(b"HTTP/1.1 ")

    trio.run(main)
