"""HTTP/1.1 answers as bytes: from the messages of an ASGI application to what goes to the client."""

from __future__ import annotations

import functools
import time
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_WITHOUT_BODY = (204, 304)
_OURS = (b"connection", b"transfer-encoding", b"date")
"""Fields that this server writes, not the application."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Answer:
    """Writes one answer. ``encode`` is given the application's messages in turn.

    A body whose length the application names must have it; one that is sent at once gets its length from here; any
    other is chunked or, for HTTP/1.0, ends with the connection.
    """

    def __init__(self, method: str, minor: int) -> None:
        self._is_head, self._minor = method == "HEAD", minor
        self._start: Mapping[str, Any] | None = None
        self._left: int | None = None  # of the announced length; None: not announced
        self._has_body = self._is_chunked = False
        self.is_started = False
        """Whether bytes of it went out."""
        self.is_complete = False
        self.closes = False
        """Whether the connection ends with this answer; decided by the time the head is written."""

    @property
    def is_begun(self) -> bool:
        """Whether the application has said what it answers."""
        return self._start is not None

    def encode(self, message: Mapping[str, Any]) -> bytes:
        """The bytes for one message; empty where nothing is to be sent yet.

        Raises:
            RuntimeError, ValueError: the application broke the rules of ASGI or HTTP.
        """
        kind: str = message["type"]
        if kind == "http.response.start" and self._start is None:
            self._start = message
            return b""
        if kind != "http.response.body" or self._start is None or self.is_complete:
            raise RuntimeError(f"unexpected message {kind!r} of the application")
        body: bytes = message.get("body", b"")
        is_last = not message.get("more_body", False)
        head = b"" if self.is_started else self._head(len(body) if is_last else None)
        data = self._framed(body, is_last)
        self.is_started, self.is_complete = True, is_last
        return head + data if head else data

    def _head(self, whole_length: int | None) -> bytes:
        assert self._start is not None
        status: int = self._start["status"]
        headers = self._start.get("headers", ())
        # What never changes is a tuple; what is made for one answer is a list.
        lines, length = _known_fields(headers) if type(headers) is tuple else _fields(headers)
        self._has_body = not self._is_head and status not in _WITHOUT_BODY
        if length is not None:
            self._left = length
        elif whole_length is not None and status not in _WITHOUT_BODY:
            lines += b"content-length: %d\r\n" % whole_length
            self._left = whole_length
        elif self._has_body and self._minor:
            self._is_chunked = True
            lines += b"transfer-encoding: chunked\r\n"
        elif self._has_body:
            self.closes = True
        closing = b"connection: close\r\n" if self.closes else b""
        return b"".join((_STATUS_LINES[status], lines, _date(), closing, b"\r\n"))

    def _framed(self, body: bytes, is_last: bool) -> bytes:
        if not self._has_body:
            return b""
        if self._is_chunked:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            return chunk + b"0\r\n\r\n" if is_last else chunk
        if self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (is_last and self._left):
                raise RuntimeError("the application's answer does not have the length that it announced")
        return body


def plain_answer(status: int, message: str) -> bytes:
    """An answer of this server's own, in text, after which the connection ends."""
    text = f"{message}\n".encode()
    head = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(text)
    return b"".join((_STATUS_LINES[status], _date(), head, text))


def _fields(headers: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, int | None]:
    """Their lines, and the length that they announce."""
    parts: list[bytes] = []
    length: int | None = None
    for name, value in headers:
        if name not in _OURS:
            parts += (name, b": ", value, b"\r\n")
        if name == b"content-length":
            length = int(value)
    lines = b"".join(parts)
    count = len(parts) // 4
    if lines.count(b"\n") != count or lines.count(b"\r") != count or b"\0" in lines:
        raise ValueError("a header field of the application has a line break or a NUL")
    return lines, length


_known_fields = functools.lru_cache(maxsize=16)(_fields)


_dates = (0, b"")


def _date() -> bytes:
    global _dates
    now = int(time.time())
    if _dates[0] != now:
        _dates = (now, f"date: {formatdate(now, usegmt=True)}\r\n".encode())
    return _dates[1]
