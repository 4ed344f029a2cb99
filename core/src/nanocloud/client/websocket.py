"""The client's end of a WebSocket to the API, for commands that start and end: plain sockets, no event loop.

Nothing here waits but ``connect``: whoever uses it waits until ``fileno`` can be read, or written where ``is_full``
says so, and then calls ``receive`` or ``flush``. Both sides may send at the same time, however much.

Source: RFC 6455; of its frames the server sends none in pieces, which are taken all the same.
"""

from __future__ import annotations

import io
import json
import os
import ssl
from base64 import b64encode
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from nanocloud.client import http
from nanocloud.client.errors import ApiError, UnreachableError, unreachable

if TYPE_CHECKING:
    from nanocloud.client.endpoint import Endpoint

_TIMEOUT_SECONDS = 60.0
_PIECE_BYTES = 256 * 1024
_FULL_BYTES = 256 * 1024
_SWITCHING_PROTOCOLS = 101
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_MAX_CONTROL_BYTES = 125
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_FINAL, _MASKED, _CONTROL = 0x80, 0x80, 8


class WebSocket:
    """Made by ``connect``."""

    def __init__(self, server: str, stream: ssl.SSLSocket, received: bytes) -> None:
        self._server, self._stream = server, stream
        self._received, self._unsent = bytearray(received), bytearray()
        self._parts = bytearray()
        self.is_closed = False
        """The server has said the last word, or gone."""
        stream.setblocking(False)

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def is_full(self) -> bool:
        """More should not be sent before something has been flushed."""
        return len(self._unsent) >= _FULL_BYTES

    @property
    def is_flushed(self) -> bool:
        return not self._unsent

    def send(self, message: bytes) -> None:
        """Queue a binary message and send what can be sent now."""
        self._queue(_BINARY, message)
        self.flush()

    def flush(self) -> None:
        """Raises UnreachableError: the connection broke."""
        try:
            while self._unsent:
                with memoryview(self._unsent) as view:
                    sent = self._stream.send(view[:_PIECE_BYTES])
                del self._unsent[:sent]
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        except OSError as exc:
            raise self._broken(exc) from exc

    def receive(self) -> list[bytes]:
        """The messages that have come by now; of a server that sends without a pause not all, and the rest is readable.

        Raises:
            UnreachableError: the connection broke, or what comes is no WebSocket.
        """
        end = len(self._received) + _FULL_BYTES
        try:
            # What TLS holds already would not make the descriptor readable.
            while len(self._received) < end or self._stream.pending():
                data = self._stream.recv(_PIECE_BYTES)
                if not data:
                    self.is_closed = True
                    break
                self._received += data
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as exc:
            raise self._broken(exc) from exc
        messages: list[bytes] = []
        while not (self.is_closed and not self._received) and self._take_frame(messages):
            pass
        self.flush()
        return messages

    def close(self) -> None:
        self._stream.close()

    def _take_frame(self, messages: list[bytes]) -> bool:
        """One frame off what was received; False where there is none whole."""
        data = self._received
        if len(data) < 2:
            return False
        kind, size, at = data[0] & 15, data[1] & 127, 2
        if size >= 126:
            at = 4 if size == 126 else 10
            size = int.from_bytes(data[2:at], "big")
        largest = _MAX_CONTROL_BYTES if kind & _CONTROL else _MAX_MESSAGE_BYTES - len(self._parts)
        if size > largest or data[1] & _MASKED:
            raise UnreachableError(f"{self._server} sends what is no WebSocket message, or one that is too large")
        if len(data) < at + size:
            return False
        is_final, body = bool(data[0] & _FINAL), bytes(data[at : at + size])
        del data[: at + size]
        if kind in (_CONTINUATION, _TEXT, _BINARY):
            self._parts += body
            if is_final:
                messages.append(bytes(self._parts))
                self._parts.clear()
        elif kind == _PING and not self.is_full:  # one that takes no answer gets no more of them
            self._queue(_PONG, body)
        elif kind == _CLOSE:
            self._queue(_CLOSE, body[:2])
            self._received.clear()
            self.is_closed = True
        return True

    def _queue(self, kind: int, body: bytes) -> None:
        size = len(body)
        self._unsent.append(_FINAL | kind)
        if size < 126:
            self._unsent.append(_MASKED | size)
        elif size < 1 << 16:
            self._unsent += bytes([_MASKED | 126]) + size.to_bytes(2, "big")
        else:
            self._unsent += bytes([_MASKED | 127]) + size.to_bytes(8, "big")
        # Masks keep proxies from taking content for requests; within TLS nobody sees any, and zeros are a mask, too.
        self._unsent += b"\0\0\0\0"
        self._unsent += body

    def _broken(self, exc: OSError) -> UnreachableError:
        return UnreachableError(f"the connection to {self._server} broke: {exc}")


def connect(endpoint: Endpoint, path: str, *, protocol: str) -> WebSocket:
    """Open the WebSocket at ``path``.

    Raises:
        ApiError: the server refused it.
        UnreachableError: nobody answers there.
    """
    parts = urlsplit(endpoint.server)
    headers = {
        "Host": parts.netloc,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Protocol": protocol,
        **({"Authorization": f"Bearer {endpoint.token}"} if endpoint.token else {}),
    }
    context = endpoint.ssl_context()
    try:
        stream = http.connect(parts.hostname or "", parts.port or 443, context, timeout=_TIMEOUT_SECONDS)
    except OSError as exc:
        raise unreachable(endpoint.server, exc) from exc
    try:
        stream.sendall(http.request_head("GET", parts.path + path, headers))
        head, rest = _read_head(stream)
        answer = http.read_response(io.BufferedReader(io.BytesIO(head)))
        if answer.status != _SWITCHING_PROTOCOLS:
            raise _refusal(answer, stream, rest, path)
    except (OSError, http.ProtocolError) as exc:
        stream.close()
        raise unreachable(endpoint.server, exc) from exc
    except ApiError:
        stream.close()
        raise
    return WebSocket(endpoint.server, stream, rest)


def _read_head(stream: ssl.SSLSocket) -> tuple[bytes, bytes]:
    """Status line and headers with the empty line below, and what came with them."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = stream.recv(_PIECE_BYTES)
        if not more or len(data) > http.MAX_HEAD_BYTES:
            raise http.ProtocolError("its answer is no HTTP")
        data += more
    head, end, rest = data.partition(b"\r\n\r\n")
    return head + end, rest


def _refusal(answer: http.Response, stream: ssl.SSLSocket, body: bytes, path: str) -> ApiError:
    size = answer.headers.get("content-length", "0")
    while len(body) < min(int(size), _PIECE_BYTES) and (more := stream.recv(_PIECE_BYTES)):
        body += more
    try:
        status = json.loads(body)
    except ValueError:
        status = None
    return ApiError(answer.status, status if isinstance(status, dict) else {}, path)
