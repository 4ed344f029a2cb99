"""DNS messages on the wire: reads queries, writes replies. Pure and strict; untrusted bytes come in.

A name is kept as its wire form in lower case (``b"\\x07mariadb\\x07default\\x03svc\\x00"``), which is what the lookup
tables are keyed by. Lowering the bytes is safe: a length byte is at most 63, below the letters.

A message: header of 12 bytes (id, flags, four counts), questions, then answer, authority and additional records.
Source: RFC 1035, section 4; EDNS: RFC 6891; negative answers: RFC 2308.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

A: Final = 1
SOA: Final = 6
PTR: Final = 12
AAAA: Final = 28
OPT: Final = 41
IXFR: Final = 251
AXFR: Final = 252
ANY: Final = 255
INTERNET: Final = 1

NOERROR: Final = 0
FORMERR: Final = 1
SERVFAIL: Final = 2
NXDOMAIN: Final = 3
NOTIMP: Final = 4
REFUSED: Final = 5
BADVERS: Final = 16

CLASSIC_UDP_BYTES: Final = 512
OUR_UDP_BYTES: Final = 1232
"""What we announce and send at most of our own: fits any path unfragmented (DNS flag day 2020)."""
MAX_QUERY_BYTES: Final = 4096
TTL_SECONDS: Final = 5
"""Names move with their pods; a resolver may keep them for this long."""

_HEADER = struct.Struct("!HHHHHH")
_TAIL = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")
_QR, _OPCODE, _AA, _TC, _RD, _RA = 0x8000, 0x7800, 0x0400, 0x0200, 0x0100, 0x0080
_MAX_NAME_BYTES = 255
_MAX_ADDITIONAL = 4


class MalformedError(Exception):
    """Not a query: answer nothing, so that nobody can make two servers answer each other."""


class RefusedQueryError(Exception):
    """A query that gets an error as answer; ``reply`` is that answer."""

    def __init__(self, reply: bytes) -> None:
        super().__init__("query refused")
        self.reply = reply


@attrs.frozen(kw_only=True)
class Query:
    id: int
    flags: int
    name: bytes
    """In lower case."""
    kind: int
    question: bytes
    """As it was asked, case included; a reply repeats it."""
    edns: bool
    udp_bytes: int
    """How large a UDP reply may be."""

    def suffixes(self) -> list[bytes]:
        """The name, its parent, and so on up to the root."""
        found, at = [self.name], 0
        while self.name[at]:
            at += self.name[at] + 1
            found.append(self.name[at:])
        return found


def parse_query(packet: bytes) -> Query:
    """Read one query.

    Raises:
        MalformedError: what must not be answered at all.
        RefusedQueryError: a query of a kind that is answered with an error.
    """
    if not _HEADER.size < len(packet) <= MAX_QUERY_BYTES:
        raise MalformedError
    ident, flags, questions, answers, authorities, additional = _HEADER.unpack_from(packet)
    if flags & _QR:
        raise MalformedError
    bare = _HEADER.pack(ident, _QR | (flags & (_OPCODE | _RD)), 0, 0, 0, 0)
    if flags & _OPCODE:
        raise RefusedQueryError(_with_code(bare, NOTIMP))
    if questions != 1 or answers or authorities or additional > _MAX_ADDITIONAL:
        raise RefusedQueryError(_with_code(bare, FORMERR))
    try:
        end = skip_name(packet, _HEADER.size)
        kind, kind_class = _TAIL.unpack_from(packet, end)
        edns, version, size = _find_opt(packet, end + _TAIL.size, additional)
    except (MalformedError, struct.error):
        raise RefusedQueryError(_with_code(bare, FORMERR)) from None
    query = Query(
        id=ident,
        flags=flags,
        name=packet[_HEADER.size : end].lower(),
        kind=kind,
        question=packet[_HEADER.size : end + _TAIL.size],
        edns=edns,
        udp_bytes=max(CLASSIC_UDP_BYTES, size),
    )
    if edns and version:
        raise RefusedQueryError(reply(query, code=BADVERS))
    if kind in (AXFR, IXFR) or kind_class != INTERNET:
        raise RefusedQueryError(reply(query, code=REFUSED))
    return query


def skip_name(packet: bytes, at: int) -> int:
    """The offset behind an uncompressed name. A query has nothing to point back to, so pointers are refused."""
    start = at
    while True:
        if at >= len(packet) or at - start >= _MAX_NAME_BYTES:
            raise MalformedError
        length = packet[at]
        if length > 63:
            raise MalformedError
        at += 1 + length
        if not length:
            return at


def _find_opt(packet: bytes, at: int, records: int) -> tuple[bool, int, int]:
    """(whether there is an OPT record, its version, its UDP size); the records must fill the message exactly."""
    found, version, size = False, 0, 0
    for _ in range(records):
        name_end = skip_name(packet, at)
        kind, class_, ttl, length = _RECORD.unpack_from(packet, name_end)
        if kind == OPT:
            if found or name_end != at + 1:
                raise MalformedError
            found, version, size = True, ttl >> 16 & 0xFF, class_
        at = name_end + _RECORD.size + length
    if at != len(packet):
        raise MalformedError
    return found, version, size


def reply(
    query: Query, *, code: int = NOERROR, answers: Sequence[tuple[int, bytes]] = (), zone: bytes | None = None,
    over_tcp: bool = False,
) -> bytes:  # fmt: skip
    """A reply of our own.

    Args:
        answers: (type, data) of records that all belong to the name that was asked.
        zone: wire name of our zone that has no such name or record; its SOA lets the asker remember that.
    """
    body = b"".join(_record(b"\xc0\x0c", kind, data) for kind, data in answers)
    authority = b"" if zone is None else _record(zone, SOA, _soa(zone))
    flags = _QR | _RA | (query.flags & _RD) | (_AA if answers or zone is not None else 0)
    counts = (len(answers), int(zone is not None))
    whole = _assemble(query, flags, code, *counts, body + authority)
    if over_tcp or len(whole) <= min(query.udp_bytes, OUR_UDP_BYTES):
        return whole
    return _assemble(query, flags | _TC, code, 0, 0, b"")


def truncated(query: Query) -> bytes:
    """Tells the asker to come again over TCP."""
    return _assemble(query, _QR | _RA | _TC | (query.flags & _RD), NOERROR, 0, 0, b"")


def answers_query(packet: bytes, ident: int, question: bytes) -> bool:
    """Whether an upstream's packet is the reply to what we asked; everything else is noise or forgery."""
    if len(packet) < _HEADER.size + len(question):
        return False
    found, flags, questions = struct.unpack_from("!HHH", packet)
    echoed = packet[_HEADER.size : _HEADER.size + len(question)]
    return found == ident and bool(flags & _QR) and questions == 1 and echoed.lower() == question.lower()


def code_of(packet: bytes) -> int:
    return packet[3] & 0x0F


def with_id(packet: bytes, ident: int) -> bytes:
    return ident.to_bytes(2, "big") + packet[2:]


def wire_name(name: str) -> bytes:
    """``mariadb.default.svc`` as a wire name. Raises ValueError with the reason."""
    labels = name.split(".") if name else []
    wire = b""
    for label in labels:
        raw = label.encode("ascii", errors="strict")
        if not 1 <= len(raw) <= 63:
            raise ValueError(f"label {label!r} has {len(raw)} characters; 1 to 63 are allowed")
        wire += bytes([len(raw)]) + raw
    if len(wire) + 1 > _MAX_NAME_BYTES:
        raise ValueError(f"it takes {len(wire) + 1} bytes; {_MAX_NAME_BYTES} are allowed")
    return wire.lower() + b"\0"


def _record(owner: bytes, kind: int, data: bytes) -> bytes:
    return owner + _RECORD.pack(kind, INTERNET, TTL_SECONDS, len(data)) + data


def _soa(zone: bytes) -> bytes:
    # Serial and timers are for zone transfers, which nobody gets; the last field bounds how long "no" is remembered.
    return b"\x02ns" + zone + b"\x0ahostmaster" + zone + struct.pack("!IIIII", 1, 3600, 600, 86400, TTL_SECONDS)


def _assemble(query: Query, flags: int, code: int, answers: int, authorities: int, body: bytes) -> bytes:
    opt = b""
    if query.edns:
        # The upper bits of the code travel in the OPT record's TTL field.
        opt = b"\0" + _RECORD.pack(OPT, OUR_UDP_BYTES, (code >> 4) << 24, 0)
    header = _HEADER.pack(query.id, flags | (code & 0x0F), 1, answers, authorities, int(bool(opt)))
    return header + query.question + body + opt


def _with_code(header: bytes, code: int) -> bytes:
    return header[:3] + bytes([header[3] & 0xF0 | code]) + header[4:]
