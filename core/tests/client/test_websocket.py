"""The client's WebSocket against a server of its own kind of framing, over real TLS on loopback."""

from __future__ import annotations

import itertools
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest
import trustme
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
)

from nanocloud.client.endpoint import Endpoint
from nanocloud.client.errors import ApiError, UnreachableError
from nanocloud.client.websocket import WebSocket, connect

Talk = Callable[[WSConnection, ssl.SSLSocket], None]


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Callable[[Talk], Endpoint]]:
    """Starts a server that has one talk."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    listening = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def start(talk: Talk) -> Endpoint:
        def serve() -> None:
            plain, _ = listening.accept()
            with (
                suppress(ssl.SSLError),
                context.wrap_socket(plain, server_side=True) as stream,
            ):  # a client may refuse us
                framing = WSConnection(ConnectionType.SERVER)
                while (event := next(framing.events(), None)) is None:
                    framing.receive_data(stream.recv(65536))
                assert isinstance(event, Request)
                talk(framing, stream)

        threads.append(threading.Thread(target=serve, daemon=True))
        threads[-1].start()
        return Endpoint(f"https://127.0.0.1:{listening.getsockname()[1]}", ca=tmp_path / "ca.pem")

    yield start
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    listening.close()


def messages_of(remote: WebSocket, *, until: Callable[[list[bytes]], bool] = lambda _: False) -> list[bytes]:
    """Everything until the server closes, or ``until`` holds."""
    found = remote.receive()
    while not remote.is_closed and not until(found):
        writing = [] if remote.is_flushed else [remote]
        readable, writable, _ = select.select([remote], writing, [], 20)
        assert readable or writable
        if writable:
            remote.flush()
        found += remote.receive()
    return found


def accept(framing: WSConnection, stream: ssl.SSLSocket, *more: BytesMessage) -> None:
    data = framing.send(AcceptConnection(subprotocol="chat"))
    stream.sendall(data + b"".join(framing.send(message) for message in more))


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 300_000])
def test_a_message_of_any_size_comes_as_it_was_sent(serving: Callable[[Talk], Endpoint], size: int) -> None:
    body = bytes(i % 251 for i in range(size))

    def talk(framing: WSConnection, stream: ssl.SSLSocket) -> None:
        accept(framing, stream)
        received = bytearray()
        while True:
            for event in framing.events():
                if isinstance(event, BytesMessage):
                    received += event.data
                    if event.message_finished:
                        stream.sendall(framing.send(BytesMessage(bytes(received))))
                        stream.sendall(framing.send(CloseConnection(1000)))
                elif isinstance(event, CloseConnection):
                    return
            framing.receive_data(stream.recv(65536))

    remote = connect(serving(talk), "/x", protocol="chat")
    remote.send(body)
    assert messages_of(remote) == [body]
    remote.close()


def test_what_comes_with_the_answer_is_not_lost(serving: Callable[[Talk], Endpoint]) -> None:
    endpoint = serving(lambda framing, stream: accept(framing, stream, BytesMessage(b"a"), BytesMessage(b"b")))
    remote = connect(endpoint, "/x", protocol="chat")
    assert messages_of(remote) == [b"a", b"b"]
    remote.close()


def test_a_message_in_pieces_is_one(serving: Callable[[Talk], Endpoint]) -> None:
    begun = [BytesMessage(letter, message_finished=False) for letter in (b"a", b"b")]
    pieces = (*begun, BytesMessage(b"c"))
    remote = connect(serving(lambda framing, stream: accept(framing, stream, *pieces)), "/x", protocol="chat")
    assert messages_of(remote) == [b"abc"]
    remote.close()


def test_a_ping_is_answered(serving: Callable[[Talk], Endpoint]) -> None:
    answers: list[bytes] = []

    def talk(framing: WSConnection, stream: ssl.SSLSocket) -> None:
        accept(framing, stream)
        stream.sendall(framing.send(Ping(b"are you there")))
        while not answers:
            framing.receive_data(stream.recv(65536))
            answers.extend(bytes(event.payload) for event in framing.events() if isinstance(event, Pong))

    remote = connect(serving(talk), "/x", protocol="chat")
    assert messages_of(remote) == []
    assert answers == [b"are you there"]
    remote.close()


def test_both_can_send_much_at_the_same_time(serving: Callable[[Talk], Endpoint]) -> None:
    """Neither reads before it has sent more than any buffer holds."""
    much = 8 << 20

    def talk(framing: WSConnection, stream: ssl.SSLSocket) -> None:
        accept(framing, stream)
        stream.sendall(framing.send(BytesMessage(b"s" * much)))
        received = 0
        while received < much:
            framing.receive_data(stream.recv(65536))
            received += sum(len(event.data) for event in framing.events() if isinstance(event, BytesMessage))
        stream.sendall(framing.send(BytesMessage(b"all")))

    remote = connect(serving(talk), "/x", protocol="chat")
    remote.send(b"c" * much)
    assert remote.is_full
    assert [len(message) for message in messages_of(remote)] == [much, 3]
    assert remote.is_flushed
    remote.close()


class Endless:
    """The TLS stream of a server that repeats a frame for ever; what is sent to it stays where it is at first."""

    def __init__(self, frame: bytes) -> None:
        self._records = itertools.cycle([frame * (16_000 // len(frame))])
        self.given = self.taken = 0
        self.takes = False

    def setblocking(self, _: bool) -> None: ...

    def pending(self) -> int:
        return 0

    def recv(self, _: int) -> bytes:
        record = next(self._records)
        self.given += len(record)
        assert self.given < 64 << 20, "more is read than a command should hold"
        return record

    def send(self, data: memoryview) -> int:
        if not self.takes:
            raise ssl.SSLWantWriteError
        self.taken += len(data)
        return len(data)


def test_of_a_server_that_never_pauses_messages_come_all_the_same() -> None:
    stream = Endless(b"\x82\x7e" + (500).to_bytes(2, "big") + bytes(500))
    remote = WebSocket("server", cast("ssl.SSLSocket", stream), b"")
    for _ in range(3):
        assert set(remote.receive()) == {bytes(500)}
    assert stream.given < 3 << 20


def test_a_server_that_pings_and_takes_no_answer_fills_no_memory() -> None:
    stream = Endless(b"\x89\x7d" + bytes(125))
    remote = WebSocket("server", cast("ssl.SSLSocket", stream), b"")
    while stream.given < 4 << 20:
        assert remote.receive() == []
    stream.takes = True
    remote.flush()
    assert stream.taken < 1 << 20


@pytest.mark.parametrize(
    "frame", [b"\x89\x7e\x00\x7e" + bytes(126), b"\x82\x85\0\0\0\0hello", b"\x82\x7f" + b"\x7f" * 8]
)
def test_frames_that_no_server_may_send_are_told(frame: bytes) -> None:
    remote = WebSocket("server", cast("ssl.SSLSocket", Endless(frame)), b"")
    with pytest.raises(UnreachableError, match="no WebSocket message"):
        remote.receive()


def test_a_refusal_is_the_servers_own_word(serving: Callable[[Talk], Endpoint]) -> None:
    def talk(framing: WSConnection, stream: ssl.SSLSocket) -> None:
        body = b'{"message": "no such pod", "code": 404}'
        headers = [(b"content-length", b"%d" % len(body))]
        stream.sendall(framing.send(RejectConnection(status_code=404, headers=headers, has_body=True)))
        stream.sendall(framing.send(RejectData(body)))

    with pytest.raises(ApiError, match="no such pod") as caught:
        connect(serving(talk), "/x", protocol="chat")
    assert caught.value.code == 404


def test_a_server_that_is_not_there_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(UnreachableError, match="nothing listens at"):
        connect(Endpoint(f"https://127.0.0.1:{port}", ca=None), "/x", protocol="chat")


def test_another_authority_is_refused(serving: Callable[[Talk], Endpoint], tmp_path: Path) -> None:
    endpoint = serving(lambda framing, stream: None)
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    with pytest.raises(UnreachableError, match="not this node's"):
        connect(Endpoint(endpoint.server, ca=other), "/x", protocol="chat")
