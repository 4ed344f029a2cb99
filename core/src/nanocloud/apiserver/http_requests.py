"""HTTP/1.1 requests as bytes: the head of a request, and its body as it arrives. No input or output happens here.

llhttp parses, under httptools, with all its leniencies off: it refuses bare line feeds, folded fields, spaces before a
colon, repeated or signed lengths and a length beside a transfer encoding. Two programs that read one request
differently can be played against each other (request smuggling), so what it leaves to its caller is refused here: a
request line that it straightened, every encoding but ``chunked``, two hosts, targets that are neither path nor URL, and
whatever says that it and this module disagree about where a request ends.

Each request gets a parser of its own, fed no byte of the next one: what one request says changes nothing for others.

Source: RFC 9110 and RFC 9112.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

if TYPE_CHECKING:
    from collections.abc import Sequence

    Pairs = list[tuple[bytes, bytes]]

MAX_HEAD_BYTES = 64 * 1024
MAX_FIELDS = 128
_MAX_OVERHEAD_BYTES = 16 * 1024
_FREE_OVERHEAD_BYTES = 16  # of each chunk

_KNOWN = frozenset((b"connection", b"content-length", b"expect", b"host", b"transfer-encoding", b"upgrade"))
# Possessive, for what comes from outside must not make a pattern try again from every position.
_ABSOLUTE = re.compile(rb"https?://([^/?#@]++)([/?].*+)?", re.IGNORECASE)
_HOST = re.compile(rb"[^\s,/?#@\\]*+")


class RequestError(Exception):
    """A request that is not understood or not taken; the connection ends with ``code``."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class Request(NamedTuple):
    """The head of a request, and where to find its body."""

    method: str
    raw_path: bytes
    query: bytes
    minor: int
    """1 for HTTP/1.1, 0 for HTTP/1.0."""
    pairs: Pairs
    """The fields: names in lower case, values without the space around them."""
    closes: bool
    expects_continue: bool
    upgrade: bytes
    """In lower case; empty where the client asks for no other protocol."""
    body: Body | None

    @property
    def path(self) -> str:
        raw = self.raw_path
        return unquote(raw.decode("ascii")) if b"%" in raw else raw.decode("ascii")


class _Found:
    """What llhttp finds in one request."""

    def __init__(self) -> None:
        self.target = b""
        self.pairs: Pairs = []
        self.data: list[bytes] = []
        self.chunks = self.messages = 0
        self.is_complete = False

    def on_message_begin(self) -> None:
        self.messages += 1

    def on_url(self, target: bytes) -> None:
        self.target = target

    def on_header(self, name: bytes, value: bytes) -> None:
        self.pairs.append((name.lower(), value.rstrip(b" \t")))

    def on_chunk_header(self) -> None:
        self.chunks += 1

    def on_body(self, data: bytes) -> None:
        self.data.append(data)

    def on_message_complete(self) -> None:
        self.is_complete = True


def parse_request(data: bytes) -> Request:
    """The request that begins with a head.

    Args:
        data: all of the head, with the empty line that ends it.

    Raises:
        RequestError: it breaks a rule above.
    """
    found = _Found()
    parser = HttpRequestParser(found)
    is_upgrade = _feed(parser, found, data)
    method, target = parser.get_method(), found.target
    minor = _minor(data, method, target)
    pairs, found.pairs = found.pairs, []  # trailers are no fields
    if len(pairs) > MAX_FIELDS:
        raise RequestError(431, f"a request has at most {MAX_FIELDS} header fields")
    known: dict[bytes, list[bytes]] = {}
    for name, value in pairs:
        if name in _KNOWN:
            known.setdefault(name, []).append(value)
    _check_host(known.get(b"host", []), minor)
    length = _body_length(known, minor)
    if found.is_complete is not (length == 0):
        raise RequestError(400, "a request that asks for another protocol has no body")
    if target[0] != 0x2F:
        target, pairs = _from_absolute(target, pairs)
    if b"#" in target:
        raise RequestError(400, "the request target has a fragment")
    path, _, query = target.partition(b"?")
    return Request(
        method.decode("ascii"),
        path,
        query,
        minor,
        pairs,
        closes=minor == 0 or (b"connection" in known and b"close" in _tokens(known[b"connection"])),
        expects_continue=b"expect" in known and _expects_continue(known[b"expect"]) and minor == 1,
        upgrade=b",".join(known.get(b"upgrade", ())).lower() if is_upgrade and minor else b"",
        body=Body(parser, found, length) if length != 0 else None,
    )


def _minor(data: bytes, method: bytes, target: bytes) -> int:
    """Of the version; the request line is what llhttp made of it, and nothing else."""
    for minor in (1, 0):
        if data.startswith(b"%b %b HTTP/1.%d\r\n" % (method, target, minor)):
            return minor
    raise RequestError(400, "the request line is not that of HTTP/1.1")


def _feed(parser: HttpRequestParser, found: _Found, data: bytes) -> bool:
    """Whether llhttp takes what follows for another protocol."""
    is_upgrade = False
    try:
        parser.feed_data(data)
    except HttpParserUpgrade:
        is_upgrade = True
    except HttpParserError as exc:
        raise RequestError(400, f"the request is malformed: {exc}") from exc
    if found.messages != 1:
        raise RequestError(400, "the request does not end where it should")
    return is_upgrade


def _check_host(hosts: Sequence[bytes], minor: int) -> None:
    if len(hosts) > 1 or (minor and not hosts) or (hosts and not _HOST.fullmatch(hosts[0])):
        raise RequestError(400, "a request has one host field")


def _from_absolute(target: bytes, pairs: Pairs) -> tuple[bytes, Pairs]:
    """The form for proxies, ``https://host/path``: its host counts, not the field's."""
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise RequestError(400, "the request target is no path")
    host, rest = absolute.groups(b"/")
    others = [pair for pair in pairs if pair[0] != b"host"]
    return rest if rest.startswith(b"/") else b"/" + rest, [(b"host", host), *others]


def _tokens(values: Sequence[bytes]) -> set[bytes]:
    return {token.strip(b" \t").lower() for value in values for token in value.split(b",")}


def _expects_continue(values: Sequence[bytes]) -> bool:
    if [value.lower() for value in values] != [b"100-continue"]:
        raise RequestError(417, "the only expectation that is met is 100-continue")
    return True


def _body_length(known: dict[bytes, list[bytes]], minor: int) -> int | None:
    """None: it is chunked. That a length is one number, and alone, llhttp has seen to."""
    if encodings := known.get(b"transfer-encoding"):
        if not minor:
            raise RequestError(400, "a transfer encoding goes with HTTP/1.1")
        if [encoding.lower() for encoding in encodings] != [b"chunked"]:
            raise RequestError(501, "the only transfer encoding that is understood is chunked")
        return None
    return int(known[b"content-length"][0]) if b"content-length" in known else 0


class Body:
    """The rest of one request, of an announced length or in chunks.

    Extensions of chunks and trailers are read and dropped, within bounds: what is no data may not be much more than
    the data.
    """

    def __init__(self, parser: HttpRequestParser, found: _Found, length: int | None) -> None:
        self._parser, self._found = parser, found
        self._left = length
        self._overhead_bytes = 0

    @property
    def is_complete(self) -> bool:
        return self._found.is_complete

    def take(self, buffer: bytearray) -> bytes:
        """Move what ``buffer`` has of the body out of it; empty where more has to arrive first.

        Raises:
            RequestError: it is not framed as it should be.
        """
        data: list[bytes] = []
        while not self.is_complete and (size := self._next_size(buffer)):
            piece = bytes(buffer[:size])
            del buffer[:size]
            data += self._parse(piece)
        return b"".join(data)

    def _next_size(self, buffer: bytearray) -> int:
        """How much to give to the parser, which would go on with the next request and not say where that began.

        A chunked body ends with a line that is not empty and an empty one. So where it ends, a ``CRLF CRLF`` ends that
        no earlier piece has a part of, if pieces end behind such, and what could become one waits for the rest.
        """
        if self._left is not None:
            size = min(self._left, len(buffer))
            self._left -= size
            return size
        end = buffer.find(b"\r\n\r\n")
        if end >= 0:
            return end + 4
        return len(buffer) - next((size for size in (3, 2, 1) if buffer.endswith(b"\r\n\r"[:size])), 0)

    def _parse(self, piece: bytes) -> list[bytes]:
        found = self._found
        _feed(self._parser, found, piece)
        data, found.data = found.data, []
        chunks, found.chunks = found.chunks, 0
        overhead = len(piece) - 3 * sum(map(len, data)) - _FREE_OVERHEAD_BYTES * chunks
        self._overhead_bytes = max(0, self._overhead_bytes + overhead)
        if self._overhead_bytes > _MAX_OVERHEAD_BYTES:
            raise RequestError(400, "a chunked body has more framing than data")
        return data
