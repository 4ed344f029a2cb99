"""A load of HTTP/1.1 over TLS from one thread: requests on connections that stay open, and many streams at once.

It looks at no more of an answer than where it ends and that it is good, so that a server is the slower side.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Callable

import attrs

Request = Callable[[int], bytes]
"""The bytes of the next request of a connection, by its number."""


@attrs.frozen
class Place:
    host: str
    port: int
    context: ssl.SSLContext

    def connect(self) -> ssl.SSLSocket:
        plain = socket.create_connection((self.host, self.port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.context.wrap_socket(plain, server_hostname=self.host)

    def request(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> bytes:
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nAccept: application/json\r\n"
        if body:
            head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        return head.encode() + b"\r\n" + body


def load(place: Place, request: Request, seconds: float, *, connections: int) -> int:
    """How many requests are answered in so many seconds, each connection sending when it has its answer."""
    sockets = [place.connect() for _ in range(connections)]
    numbers = {one.fileno(): number for number, one in enumerate(sockets)}
    by_file = {one.fileno(): one for one in sockets}
    poll = select.epoll()
    for one in sockets:
        poll.register(one.fileno(), select.EPOLLIN)
        one.sendall(request(numbers[one.fileno()]))
    answered, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        for file, _ in poll.poll():
            one = by_file[file]
            read_answer(one)
            answered += 1
            one.sendall(request(numbers[file]))
    poll.close()
    for one in sockets:
        one.close()
    return answered


def read_answer(one: ssl.SSLSocket) -> bytes:
    """One answer's body. Raises ConnectionError: it is no 2xx."""
    data = one.recv(1 << 18)
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += _more(one)
    head, body = data[:end].lower(), data[end + 4 :]
    if not head.startswith(b"http/1.1 2"):
        raise ConnectionError(data[:400].decode(errors="replace"))
    if b"transfer-encoding: chunked" in head:
        while not body.endswith(b"0\r\n\r\n"):
            body += _more(one)
        return body
    length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
    pieces, left = [body], length - len(body)
    while left > 0:
        pieces.append(_more(one))
        left -= len(pieces[-1])
    return b"".join(pieces)


class Audience:
    """Many connections that each follow a stream of lines."""

    def __init__(self, place: Place, request: bytes, count: int, *, first: bytes = b"") -> None:
        """``first`` ends what every stream begins with, besides its head."""
        self._sockets: dict[int, ssl.SSLSocket] = {}
        self._poll = select.epoll()
        for _ in range(count):
            one = place.connect()
            one.sendall(request)
            data = b""
            while b"\r\n\r\n" not in data or first not in data:
                data += _more(one)
            one.setblocking(False)
            self._sockets[one.fileno()] = one
            self._poll.register(one.fileno(), select.EPOLLIN)

    def until_all_saw(self, mark: bytes, after: Callable[[], object]) -> float:
        """Seconds from the call of ``after`` until every one has received the mark."""
        waiting = dict.fromkeys(self._sockets, b"")
        began = time.perf_counter()
        after()
        while waiting:
            for file, _ in self._poll.poll():
                data = waiting.get(file, b"") + self._read(file)
                if mark in data:
                    waiting.pop(file, None)
                elif file in waiting:
                    waiting[file] = data
        return time.perf_counter() - began

    def _read(self, file: int) -> bytes:
        try:
            return _more(self._sockets[file])
        except ssl.SSLWantReadError:
            return b""  # a part of a record

    def close(self) -> None:
        self._poll.close()
        for one in self._sockets.values():
            one.close()


def _more(one: ssl.SSLSocket) -> bytes:
    data = one.recv(1 << 18)
    if not data:
        raise ConnectionError("the server ended a connection")
    return data
