"""HTTP/1.1 requests as bytes: the head of a request, and how its body is framed. No input or output happens here.

Strict on purpose. Two programs that read one request differently can be played against each other (request
smuggling), so whatever RFC 9112 leaves to the reader's goodwill is refused here: bare line feeds, folded fields, spaces
before a colon, repeated or signed lengths, a length beside a transfer encoding, every encoding but ``chunked``.

Source: RFC 9110 and RFC 9112.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

    Pairs = list[tuple[bytes, bytes]]

MAX_HEAD_BYTES = 64 * 1024
MAX_FIELDS = 128
_MAX_TRAILER_BYTES = 8 * 1024
_MAX_OVERHEAD_BYTES = 16 * 1024
_FREE_OVERHEAD_BYTES = 16  # of each chunk
_MAX_SIZE_LINE_BYTES = 1024

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb"{1,32}) ([\x21-\x7e]++) HTTP/1\.([01])\r\n")
# Possessive, for what comes from outside must not make a pattern try again from every position.
_FIELD = re.compile(rb"(" + _TOKEN + rb"++):[ \t]*+([^\x00-\x08\x0a-\x1f\x7f]*+)\r\n")
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*+;[^\x00-\x08\x0a-\x1f\x7f]*+)?\r\n")
_ABSOLUTE = re.compile(rb"https?://([^/?#@]++)([/?].*+)?", re.IGNORECASE)
_HOST = re.compile(rb"[^\s,/?#@\\]*+")


class RequestError(Exception):
    """A request that is not understood or not taken; the connection ends with ``code``."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


@attrs.frozen
class Fields:
    """The fields of a head, and what they say about the connection."""

    pairs: Pairs
    """Names in lower case, values without the space around them."""
    length: int | None
    """Bytes of the body; None: it is chunked."""
    closes: bool
    expects_continue: bool
    upgrade: bytes
    """In lower case; empty where the client asks for no other protocol."""


@attrs.frozen
class Head:
    method: str
    raw_path: bytes
    query: bytes
    minor: int
    """1 for HTTP/1.1, 0 for HTTP/1.0."""
    fields: Fields

    @property
    def path(self) -> str:
        raw = self.raw_path
        return unquote(raw.decode("ascii")) if b"%" in raw else raw.decode("ascii")


class HeadParser:
    """Parses the heads of one connection.

    A client repeats its fields from request to request, so those of the last one are kept and compared: parsing them
    is most of the work of a small request.
    """

    def __init__(self) -> None:
        self._block, self._minor = b"", -1
        self._fields = Fields([], 0, False, False, b"")

    def parse(self, data: bytes) -> Head:
        """The head of a request.

        Args:
            data: all of it, with the empty line that ends it.

        Raises:
            RequestError: it breaks a rule above.
        """
        line = _REQUEST_LINE.match(data)
        if line is None:
            raise RequestError(400, "the request line is not HTTP/1.1")
        method, target, version = line.groups()
        minor, block = version[0] - 0x30, data[line.end() : -2]
        if block != self._block or minor != self._minor:
            self._fields = _parse_fields(block, minor)
            self._block, self._minor = block, minor
        fields = self._fields
        if target[0] != 0x2F:
            target, fields = _from_absolute(target, fields)
        if b"#" in target:
            raise RequestError(400, "the request target has a fragment")
        path, _, query = target.partition(b"?")
        return Head(method.decode("ascii"), path, query, minor, fields)


def _from_absolute(target: bytes, fields: Fields) -> tuple[bytes, Fields]:
    """The form for proxies, ``https://host/path``: its host counts, not the field's."""
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise RequestError(400, "the request target is no path")
    host, rest = absolute.groups(b"/")
    others = [pair for pair in fields.pairs if pair[0] != b"host"]
    return rest if rest.startswith(b"/") else b"/" + rest, attrs.evolve(fields, pairs=[(b"host", host), *others])


def _parse_fields(block: bytes, minor: int) -> Fields:
    pairs = _pairs(block)
    by_name: dict[bytes, list[bytes]] = {}
    for name, value in pairs:
        by_name.setdefault(name, []).append(value)
    hosts = by_name.get(b"host", [])
    if len(hosts) > 1 or (minor and not hosts) or not all(map(_HOST.fullmatch, hosts)):
        raise RequestError(400, "a request has one host field")
    connection = _tokens(by_name.get(b"connection", ()))
    expect = by_name.get(b"expect", [])
    if expect and [value.lower() for value in expect] != [b"100-continue"]:
        raise RequestError(417, "the only expectation that is met is 100-continue")
    return Fields(
        pairs,
        _body_length(by_name, minor),
        closes=minor == 0 or b"close" in connection,
        expects_continue=bool(expect) and minor == 1,
        upgrade=b",".join(by_name.get(b"upgrade", ())).lower() if minor and b"upgrade" in connection else b"",
    )


def _pairs(block: bytes) -> Pairs:
    pairs: Pairs = []
    position = 0
    while position < len(block):
        field = _FIELD.match(block, position)
        if field is None:
            raise RequestError(400, "a header field is malformed")
        if len(pairs) == MAX_FIELDS:
            raise RequestError(431, f"a request has at most {MAX_FIELDS} header fields")
        name, value = field.groups()
        pairs.append((name.lower(), value.rstrip(b" \t")))
        position = field.end()
    return pairs


def _tokens(values: Sequence[bytes]) -> set[bytes]:
    return {token.strip(b" \t").lower() for value in values for token in value.split(b",")}


def _body_length(by_name: dict[bytes, list[bytes]], minor: int) -> int | None:
    lengths, encodings = by_name.get(b"content-length", []), by_name.get(b"transfer-encoding", [])
    if encodings:
        if lengths or not minor:
            raise RequestError(400, "a transfer encoding goes with HTTP/1.1 and without a content length")
        if len(encodings) > 1 or encodings[0].lower() != b"chunked":
            raise RequestError(501, "the only transfer encoding that is understood is chunked")
        return None
    if not lengths:
        return 0
    if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > 15:
        raise RequestError(400, "the content length is not one number")
    return int(lengths[0])


class Body(Protocol):
    """The rest of one request's body."""

    @property
    def is_complete(self) -> bool: ...

    def take(self, buffer: bytearray) -> bytes:
        """Move what ``buffer`` has of the body out of it; empty where more has to arrive first.

        Raises:
            RequestError: it is not framed as it should be.
        """


class SizedBody:
    """A body whose length was announced."""

    def __init__(self, length: int) -> None:
        self._left = length

    @property
    def is_complete(self) -> bool:
        return self._left == 0

    def take(self, buffer: bytearray) -> bytes:
        piece = bytes(buffer[: self._left])
        del buffer[: self._left]
        self._left -= len(piece)
        return piece


class ChunkedBody:
    """A body in chunks: lines of a hexadecimal size, its data, a line end; size 0, trailers, an empty line.

    Extensions and trailers are read and dropped, within bounds: what is no data may not be much more than the data.
    """

    def __init__(self) -> None:
        self._left = 0  # of the chunk that is being read
        self._ends_chunk = False  # its data is read, its line end is not
        self._in_trailers = False
        self._overhead_bytes = 0
        self.is_complete = False

    def take(self, buffer: bytearray) -> bytes:
        pieces: list[bytes] = []
        while not self.is_complete:
            if self._left:
                if not buffer:
                    break
                pieces.append(bytes(buffer[: self._left]))
                del buffer[: self._left]
                self._left -= len(pieces[-1])
                self._overhead_bytes -= 2 * len(pieces[-1])
                self._ends_chunk = True
            elif not self._take_line(buffer):
                break
        return b"".join(pieces)

    def _take_line(self, buffer: bytearray) -> bool:
        """Move a line out of the buffer; False where it has not arrived yet."""
        limit = _MAX_TRAILER_BYTES if self._in_trailers else _MAX_SIZE_LINE_BYTES
        end = buffer.find(b"\n", 0, limit)
        if end < 0:
            if len(buffer) >= limit:
                raise RequestError(400, f"a line between chunks is longer than {limit} bytes")
            return False
        line = bytes(buffer[: end + 1])
        del buffer[: end + 1]
        self._overhead_bytes = max(0, self._overhead_bytes) + len(line)
        if self._overhead_bytes > _MAX_OVERHEAD_BYTES:
            raise RequestError(400, "a chunked body has more framing than data")
        if self._ends_chunk:
            self._ends_chunk = False
            if line != b"\r\n":
                raise RequestError(400, "a chunk is longer than its size")
        elif self._in_trailers:
            self._take_trailer(line)
        else:
            self._take_size(line)
        return True

    def _take_size(self, line: bytes) -> None:
        size = _SIZE_LINE.fullmatch(line)
        if size is None:
            raise RequestError(400, "the size of a chunk is malformed")
        self._left = int(size[1], 16)
        self._overhead_bytes -= _FREE_OVERHEAD_BYTES
        self._in_trailers = self._left == 0

    def _take_trailer(self, line: bytes) -> None:
        if line == b"\r\n":
            self.is_complete = True
        elif not _FIELD.fullmatch(line):
            raise RequestError(400, "a trailer is malformed")
