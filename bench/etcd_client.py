"""As much of gRPC as a measure of etcd needs: unary calls, many in flight, and one watch, over one socket.

Written for speed, so that the client takes as little as it can from the peer it measures: requests are built from
ready-made pieces, header blocks of answers are not looked at, a failed call is one without a message. HTTP/2 with prior
knowledge, as gRPC without TLS has it. Source: RFC 9113; gRPC over HTTP/2; etcd's rpc.proto.
"""

from __future__ import annotations

import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_OUR_WINDOW = 1 << 30
_MAX_FRAME_BYTES = 16_384


class Channel:
    """One connection. Calls are numbers: ``start`` gives one, ``receive`` yields (number, message)."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        assert place.hostname
        assert place.port
        self._authority = place.netloc.encode()
        self.socket = socket.create_connection((place.hostname, place.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._heads: dict[str, bytes] = {}
        self._next, self._window, self._eaten = 1, 65_535, 0
        self._buffer = bytearray()
        self._messages: dict[int, bytearray] = {}
        self._ready: deque[tuple[int, bytes]] = deque()
        settings = struct.pack(">HI", 4, _OUR_WINDOW)  # INITIAL_WINDOW_SIZE
        self.socket.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(_SETTINGS, 0, 0, settings)
            + _frame(_WINDOW, 0, 0, struct.pack(">I", _OUR_WINDOW))
        )

    def start(self, method: str, message: bytes, *, last: bool = True) -> int:
        """Begin a call with a message of at most one frame; waits where the peer's window is full."""
        stream, self._next = self._next, self._next + 2
        body = b"\0" + struct.pack(">I", len(message)) + message
        assert len(body) <= _MAX_FRAME_BYTES
        while self._window < len(body):
            self._read()
        self._window -= len(body)
        head = self._heads.get(method) or self._heads.setdefault(method, self._head(method))
        self.socket.sendall(
            _frame(_HEADERS, _END_HEADERS, stream, head) + _frame(_DATA, _END_STREAM if last else 0, stream, body)
        )
        return stream

    def receive(self) -> Iterator[tuple[int, bytes]]:
        """What arrives, for ever. Raises ConnectionError when the peer ends a call without an answer."""
        while True:
            while self._ready:
                yield self._ready.popleft()
            self._read()

    def call(self, method: str, message: bytes) -> bytes:
        stream = self.start(method, message)
        return next(answer for number, answer in self.receive() if number == stream)

    def close(self) -> None:
        self.socket.close()

    def _head(self, method: str) -> bytes:
        """Literal fields without indexing (RFC 7541, 6.2.2), the names from the static table where they are in it."""
        fields = ((4, method.encode()), (1, self._authority), (31, b"application/grpc"))
        literal = b"".join(_literal(index, value) for index, value in fields)
        return b"\x83\x86" + literal + b"\x00" + b"\x02te" + b"\x08trailers"

    def _read(self) -> None:
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the peer closed the connection")
        self._buffer += data
        buffer, position = self._buffer, 0
        while len(buffer) - position >= 9:
            length = int.from_bytes(buffer[position : position + 3], "big")
            end = position + 9 + length
            if len(buffer) < end:
                break
            kind, flags, stream = struct.unpack_from(">BBI", buffer, position + 3)
            payload = bytes(buffer[position + 9 : end])
            position = end
            if kind == _DATA:
                self._data(stream, payload)
            else:
                self._control(kind, flags, stream, payload)
        del buffer[:position]

    def _data(self, stream: int, payload: bytes) -> None:
        self._eaten += len(payload)
        if self._eaten > _OUR_WINDOW // 2:
            self.socket.sendall(_frame(_WINDOW, 0, 0, struct.pack(">I", self._eaten)))
            self._eaten = 0
        part = self._messages.setdefault(stream, bytearray())
        part += payload
        while len(part) >= 5 and len(part) >= (size := 5 + int.from_bytes(part[1:5], "big")):
            self._ready.append((stream, bytes(part[5:size])))
            del part[:size]

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _SETTINGS and not flags & _ACK:
            self.socket.sendall(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self.socket.sendall(_frame(_PING, _ACK, 0, payload))
        elif kind == _WINDOW and stream == 0:
            self._window += int.from_bytes(payload, "big")
        elif kind == _HEADERS and flags & _END_STREAM and self._messages.pop(stream, None) is None:
            raise ConnectionError("a call failed: it ended without a message")
        elif kind == _GOAWAY or (kind == _RESET and any(payload)):  # code 0 follows a whole answer now and then
            raise ConnectionError(f"the peer ended call {stream}: {payload!r}")


def keep_in_flight(
    channel: Channel, begin: Callable[[int, bytes | None], int], count: int, *, writers: int
) -> tuple[float, list[float]]:
    """Make ``count`` calls, each writer the next one when its last is answered.

    Args:
        begin: starts a call for a writer, given the answer to that writer's last one, and returns its number.

    Returns:
        Seconds in all, and of each call.
    """
    open_calls: dict[int, tuple[int, float]] = {}
    took: list[float] = []
    began = time.perf_counter()
    for writer in range(writers):
        open_calls[begin(writer, None)] = writer, time.perf_counter()
    left = count - writers
    for stream, answer in channel.receive():
        call = open_calls.pop(stream, None)
        if call is None:
            continue  # the watch's
        now = time.perf_counter()
        took.append(now - call[1])
        if left > 0:
            left -= 1
            open_calls[begin(call[0], answer)] = call[0], time.perf_counter()
        elif not open_calls:
            break
    return time.perf_counter() - began, took


# ---- protobuf --------------------------------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def text(field: int, value: bytes) -> bytes:
    """A string, bytes or message field."""
    return varint(field << 3 | 2) + varint(len(value)) + value


def integer(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def fields(message: bytes) -> dict[int, int | bytes]:
    """The last value of each field; numbers and bytes only."""
    found: dict[int, int | bytes] = {}
    position = 0
    while position < len(message):
        tag, position = _read_varint(message, position)
        value, position = _read_varint(message, position)
        if tag & 7 == 2:
            found[tag >> 3], position = message[position : position + value], position + value
        else:
            found[tag >> 3] = value
    return found


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[position]
        number |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return number, position


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload) << 8 | kind) + struct.pack(">BI", flags, stream) + payload


def _literal(index: int, value: bytes) -> bytes:
    name = bytes([index]) if index < 15 else bytes([15, index - 15])  # a prefix of four bits
    assert len(value) < 127
    return name + bytes([len(value)]) + value
