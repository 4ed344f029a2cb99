"""WebSockets on a connection of the API server: the handshake, messages, and every way to end."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_pair
from wsproto.connection import Connection as Framing
from wsproto.connection import ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage

from nanocloud.ambient import Surroundings, living_in
from nanocloud.apiserver.connection import Connection
from nanocloud.apiserver.upgrades import ASK_SECONDS, MAX_MESSAGE_BYTES

sys.path.insert(0, str(Path(__file__).parent))  # the module beside this one

from wires import MemoryWire

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = (
    b"GET /socket?x=1 HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\nSec-WebSocket-Protocol: v1, v2\r\n"
)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Sends back every message, and says how it ended."""
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][-1]})
    while (message := await receive())["type"] == "websocket.receive":
        if message["text"] == "close":
            await send({"type": "websocket.close", "code": 4000, "reason": "asked"})
            return
        await send({"type": "websocket.send", "text": message["text"], "bytes": message["bytes"]})
    scope["state"]["ended"].append(message["code"])


@attrs.define
class Client:
    stream: Any
    ended: list[int]
    framing: Framing = attrs.field(factory=lambda: Framing(ConnectionType.CLIENT))
    events: list[Event] = attrs.field(factory=list)

    async def shake_hands(self, *, then: bytes = b"") -> bytes:
        await self.stream.send_all(HANDSHAKE + b"\r\n" + then)
        head = b""
        while b"\r\n\r\n" not in head:
            head += await self.stream.receive_some(1)
        return head

    async def send(self, event: Event) -> None:
        await self.stream.send_all(self.framing.send(event))

    async def send_for_ever(self) -> None:
        while True:
            await self.stream.send_all(bytes(MAX_MESSAGE_BYTES))

    async def event(self) -> Event:
        while not self.events:
            self.framing.receive_data(bytes(await self.stream.receive_some()) or None)
            self.events.extend(self.framing.events())
        return self.events.pop(0)

    async def message(self) -> bytes | str:
        data: Any = None
        while True:
            event = await self.event()
            assert isinstance(event, BytesMessage | TextMessage), event
            data = event.data if data is None else data + event.data
            if event.message_finished:
                return bytes(data) if isinstance(event, BytesMessage) else str(data)


@asynccontextmanager
async def connected(app: Any = echo) -> AsyncIterator[Client]:
    ours, theirs = memory_stream_pair()
    client = Client(ours, [])
    connection = Connection(app, MemoryWire(theirs), state={"closing": trio.Event(), "ended": client.ended})

    async def run() -> None:
        await connection.run()
        await theirs.aclose()

    with trio.fail_after(1000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield client


async def finish(client: Client) -> None:
    await client.send(CloseConnection(code=1000))
    assert isinstance(await client.event(), CloseConnection)
    await client.stream.aclose()


async def test_the_handshake_chooses_and_messages_go_both_ways() -> None:
    async with connected() as client:
        head = await client.shake_hands()
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head  # RFC 6455, section 1.3
        assert b"sec-websocket-protocol: v2\r\n" in head
        assert b"extensions" not in head
        for data in (b"", b"x" * 100_000, "text"):
            await client.send(BytesMessage(data=data) if isinstance(data, bytes) else TextMessage(data=data))
            assert await client.message() == data
        await finish(client)
    assert client.ended == [1006]  # hypercorn says so of every client that ends it


async def test_a_message_may_come_in_pieces_with_a_ping_between() -> None:
    async with connected() as client:
        await client.shake_hands()
        await client.send(BytesMessage(data=b"a", message_finished=False))
        await client.send(Ping(payload=b"there?"))
        assert await client.event() == Pong(payload=b"there?")
        await client.send(BytesMessage(data=b"b"))
        assert await client.message() == b"ab"
        await finish(client)


async def test_a_client_may_send_with_the_handshake() -> None:
    async with connected() as client:
        await client.shake_hands(then=client.framing.send(BytesMessage(data=b"early")))
        assert await client.message() == b"early"
        await finish(client)


async def test_the_application_may_end_it() -> None:
    async with connected() as client:
        await client.shake_hands()
        await client.send(TextMessage(data="close"))
        assert await client.event() == CloseConnection(code=4000, reason="asked")
        await client.send(CloseConnection(code=4000))
        assert await client.stream.receive_some() == b""


async def test_a_client_that_does_not_answer_the_end_is_left(autojump_clock: MockClock) -> None:
    with living_in(Surroundings(threads=False)):  # virtual time waits for none
        async with connected() as client:
            await client.shake_hands()
            await client.send(TextMessage(data="close"))
            while await client.stream.receive_some():
                pass
    assert trio.current_time() < 10


async def test_a_client_that_leaves_without_a_word_has_left() -> None:
    async with connected() as client:
        await client.shake_hands()
        await client.stream.aclose()
    assert client.ended == [1006]


@pytest.mark.parametrize(
    "data",
    [
        b"\x82\x05hello",  # not masked
        b"\xf2\x80\0\0\0\0",  # reserved bits; one of them would be compression
        b"\x81\x81\0\0\0\0\xff",  # text that is no UTF-8
        b"\x83\x80\0\0\0\0",  # no such kind of frame
        b"\x09\x80\0\0\0\0",  # a ping in pieces
    ],
)
async def test_frames_that_break_the_rules_end_it(data: bytes) -> None:
    async with connected() as client:
        await client.shake_hands()
        await client.stream.send_all(data)
        assert await client.stream.receive_some() == b""
    assert client.ended == [1006]


async def test_nothing_is_compressed_also_for_a_client_that_offers_it() -> None:
    async with connected() as client:
        offer = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
        await client.stream.send_all(HANDSHAKE + offer + b"\r\n")
        head = bytes(await client.stream.receive_some())
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"extensions" not in head
        await client.stream.aclose()


async def test_a_connection_field_may_come_in_parts() -> None:
    parts = HANDSHAKE.replace(b"keep-alive, Upgrade", b"Upgrade\r\nConnection: keep-alive")
    async with connected() as client:
        await client.stream.send_all(parts + b"\r\n")
        assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 101 ")
        await client.stream.aclose()


async def test_a_message_has_a_largest_size() -> None:
    async with connected() as client:
        await client.shake_hands()
        await client.send(BytesMessage(data=bytes(MAX_MESSAGE_BYTES)))
        assert len(await client.message()) == MAX_MESSAGE_BYTES
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, BytesMessage(data=bytes(MAX_MESSAGE_BYTES + 1)))
            event = await client.event()
        assert isinstance(event, CloseConnection)
        assert event.code == 1009
        with pytest.raises(trio.BrokenResourceError):
            await client.send_for_ever()  # it is not listened to


@pytest.mark.parametrize(
    "request_",
    [
        HANDSHAKE.replace(b"13", b"8"),
        HANDSHAKE.replace(KEY, b"short"),
        HANDSHAKE.replace(KEY, b"\xff" * 24),
        HANDSHAKE + b"Sec-WebSocket-Key: " + KEY + b"\r\n",
        HANDSHAKE + b"Sec-WebSocket-Protocol: \xff\r\n",
        HANDSHAKE.replace(b"GET", b"POST"),
        HANDSHAKE + b"Content-Length: 1\r\n",
    ],
)
async def test_a_handshake_that_is_none_is_refused(request_: bytes) -> None:
    async with connected() as client:
        await client.stream.send_all(request_ + b"\r\n")
        assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 400 ")
        await client.stream.aclose()


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    await receive()


async def fails(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError


async def closes(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "websocket.close"})


@pytest.mark.parametrize(("app", "code"), [(nothing, 500), (fails, 500), (closes, 403)])
async def test_what_an_application_does_not_accept_is_answered_as_http(app: Any, code: int) -> None:
    async with connected(app) as client:
        early = client.framing.send(BytesMessage(data=b"early"))
        assert (await client.shake_hands(then=early)).startswith(b"HTTP/1.1 %d " % code)
        while await client.stream.receive_some():
            pass


async def test_an_application_may_leave_messages_unread() -> None:
    async def hurries(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await trio.testing.wait_all_tasks_blocked()
        await send({"type": "websocket.close"})

    async with connected(hurries) as client:
        await client.shake_hands(then=client.framing.send(BytesMessage(data=b"x")) * 1000)
        assert isinstance(await client.event(), CloseConnection)
        assert await client.stream.receive_some() == b""


async def test_a_client_that_leaves_while_its_messages_wait_ends_the_application(autojump_clock: MockClock) -> None:
    over = trio.Event()

    async def takes_nothing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        try:
            await trio.sleep_forever()
        finally:
            over.set()

    with living_in(Surroundings(threads=False)):
        async with connected(takes_nothing) as client:
            await client.shake_hands(then=client.framing.send(BytesMessage(data=b"x")) * 1000)
            await trio.sleep(ASK_SECONDS)
            assert await client.event() == Ping(payload=b"")
            await client.stream.aclose()
            await over.wait()
    assert trio.current_time() <= 2 * ASK_SECONDS + 1


async def test_an_application_that_fails_later_ends_it_with_a_code() -> None:
    async def accepts(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        raise ValueError

    async with connected(accepts) as client:
        await client.shake_hands()
        assert (await client.event()) == CloseConnection(code=1011, reason="")
        await client.stream.aclose()


@given(st.lists(st.one_of(st.binary(max_size=20), st.sampled_from([b"\x82\x80\0\0\0\0", b"\x88\x80\0\0\0\0"]))))
def test_no_frames_bring_a_connection_down(pieces: list[bytes]) -> None:
    async def main() -> None:
        async with connected() as client:
            await client.shake_hands(then=b"".join(pieces))
            await client.stream.send_stream.aclose()
            while await client.stream.receive_some():
                pass
        assert len(client.ended) == 1

    trio.run(main)
