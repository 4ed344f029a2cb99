"""HTTP/1.1 over TLS as commands need it: one server, one request at a time, answers that end or go on for hours.

The standard library's client reads headers by its mail package, and importing that takes a quarter of a short command.
Names of headers are lower case here. Nothing is decompressed, for nothing is asked for compressed.

Source: RFC 9112.
"""

from __future__ import annotations

import io
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

MAX_HEAD_BYTES = 64 * 1024
_BUFFER_BYTES = 64 * 1024
_NO_BODY = (204, 304)
_MAX_INTERIM = 16
_MAX_DIGITS = 18


class ProtocolError(Exception):
    """The server's answer is no HTTP, or ended in the middle."""


class ClosedError(ProtocolError):
    """The server closed the connection before it answered."""


class Response:
    """An answer; its body is read by ``read`` or line by line."""

    def __init__(self, status: int, headers: Mapping[str, str], body: io.BufferedReader) -> None:
        self.status, self.headers = status, headers
        self._body = body
        self.is_read = False
        """The body has ended, so the connection can be used for another request."""

    def read(self) -> bytes:
        """All that is left of the body."""
        content = self._body.read()
        self.is_read = True
        return content

    def readline(self) -> bytes:
        """The next line with its end, as soon as it is there; empty when the body has ended."""
        line = self._body.readline()
        self.is_read = not line
        return line


class Connection:
    """Kept between requests. All methods raise OSError for what the network or TLS refuses."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext, *, timeout: float | None) -> None:
        """``timeout`` in seconds bounds every wait for the server, None none."""
        self._address, self._context, self._timeout = (host, port), context, timeout
        self._socket: ssl.SSLSocket | None = None
        self._stream: io.BufferedReader | None = None
        self._last: Response | None = None

    def request(
        self, method: str, target: str, *, host: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Response:
        """Send a request and read the head of its answer.

        Raises:
            ClosedError: nothing came back: on a kept connection the server may not have seen the request.
            ProtocolError: what came back is no HTTP; or ``target`` cannot be sent.
        """
        head = request_head(method, target, {"Host": host, **headers}, body)
        if self._last is not None and not _is_reusable(self._last):
            self.close()
        stream = self._open()
        assert self._socket is not None
        self._socket.sendall(head + (body or b""))
        self._last = read_response(stream)
        return self._last

    def _open(self) -> io.BufferedReader:
        if self._stream is None:
            self._socket = connect(*self._address, self._context, timeout=self._timeout)
            self._stream = io.BufferedReader(socket.SocketIO(self._socket, "r"), _BUFFER_BYTES)
        return self._stream

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        if self._socket is not None:
            self._socket.close()
        self._socket = self._stream = self._last = None


def connect(host: str, port: int, context: ssl.SSLContext, *, timeout: float | None) -> ssl.SSLSocket:
    """A TLS connection that sends at once: a request waits for no acknowledgement of what was sent before."""
    plain = socket.create_connection((host, port), timeout)
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


def request_head(method: str, target: str, headers: Mapping[str, str], body: bytes | None = None) -> bytes:
    """Raises ProtocolError for a target or header that would be read as more than one."""
    first = f"{method} {target} HTTP/1.1"
    if not _is_printable(first):
        raise ProtocolError(f"{first!r} cannot be sent in a request")
    for name, value in headers.items():
        if not _is_printable(f"{name}{value}"):  # some hold secrets: the value is not shown
            raise ProtocolError(f"the header {name!r} cannot be sent: it has a character that is not printable ASCII")
    lines = [first, *(f"{name}: {value}" for name, value in headers.items())]
    if body is not None or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body or b'')}")
    if " " in target:
        raise ProtocolError(f"{target!r} cannot be asked for: it has a space in it")
    return "\r\n".join([*lines, "", ""]).encode()


def _is_printable(text: str) -> bool:
    return text.isascii() and text.isprintable()


def read_response(stream: io.BufferedReader) -> Response:
    """The head of an answer, and its body as it can be read from ``stream``; interim answers are passed over."""
    for _ in range(_MAX_INTERIM):
        status, headers = _read_head(stream)
        if status // 100 != 1 or status == 101:
            return Response(status, headers, io.BufferedReader(_body_of(stream, status, headers), _BUFFER_BYTES))
    raise ProtocolError(f"it answered {_MAX_INTERIM} times that an answer follows")


def _read_head(stream: io.BufferedReader) -> tuple[int, dict[str, str]]:
    first = _read_line(stream)
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1.") or not rest[:3].isdecimal():
        raise ProtocolError(f"its answer is no HTTP: {first[:80]!r}")
    headers: dict[str, str] = {}
    size = 0
    while line := _read_line(stream, begun=True):
        name, colon, value = line.partition(":")
        size += len(line)
        if not colon or size > MAX_HEAD_BYTES:
            raise ProtocolError(f"its answer has a header that is none, or too many: {line[:80]!r}")
        headers[name.lower()] = value.strip()
    return int(rest[:3]), headers


def _read_line(stream: io.BufferedReader, *, begun: bool = False) -> str:
    line = stream.readline(MAX_HEAD_BYTES)
    if not line and not begun:
        raise ClosedError("the connection was closed before an answer came")
    if not line.endswith(b"\n"):
        raise ProtocolError("its answer ended in the middle, or has a line without an end")
    return line.decode("latin-1").rstrip("\r\n")


def _body_of(stream: io.BufferedReader, status: int, headers: Mapping[str, str]) -> io.RawIOBase:
    length = headers.get("content-length")
    if length is not None and not (length.isdecimal() and len(length) <= _MAX_DIGITS):
        raise ProtocolError(f"its answer has a length that is none: {length[:80]!r}")
    if status in _NO_BODY or status == 101:
        return _Sized(stream, 0)
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return _Chunked(stream)
    return _Sized(stream, None if length is None else int(length))


def _is_reusable(response: Response) -> bool:
    headers = response.headers
    ends = "content-length" in headers or "transfer-encoding" in headers or response.status in _NO_BODY
    return response.is_read and ends and headers.get("connection", "").lower() != "close"


class _Sized(io.RawIOBase):
    """So many bytes; None: until the connection is closed."""

    def __init__(self, stream: io.BufferedReader, left: int | None) -> None:
        self._stream, self._left = stream, left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        room = memoryview(buffer) if self._left is None else memoryview(buffer)[: self._left]
        count = self._stream.readinto1(room) if room else 0
        if self._left is not None:
            if room and not count:
                raise ProtocolError("its answer ended in the middle")
            self._left -= count
        return count


class _Chunked(io.RawIOBase):
    """RFC 9112, section 7.1. What is there of a chunk is given at once: a watch must not wait for its next event."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self._chunk: _Sized | None = None
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        while not self._ended:
            if self._chunk is None:
                self._begin()
            elif count := self._chunk.readinto(buffer):
                return count
            else:
                self._chunk = None
                _read_line(self._stream, begun=True)  # ends the chunk
        return 0

    def _begin(self) -> None:
        size = _read_line(self._stream, begun=True).partition(";")[0].strip()
        if not size or set(size) - set("0123456789abcdefABCDEF"):
            raise ProtocolError(f"its answer has a chunk of no size: {size[:80]!r}")
        if count := int(size, 16):
            self._chunk = _Sized(self._stream, count)
            return
        self._ended = True
        size_bytes = 0
        while trailer := _read_line(self._stream, begun=True):
            size_bytes += len(trailer)
            if size_bytes > MAX_HEAD_BYTES:
                raise ProtocolError("its answer has too many trailers")
