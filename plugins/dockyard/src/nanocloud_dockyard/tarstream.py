"""A strict reader of tar streams, headers as bytes, data by the piece.

Reads v7, POSIX ustar and pax, GNU and star headers: names of any length, base-256 numbers, times to the nanosecond,
extended attributes (``SCHILY.xattr.``). Sparse files, unknown types, global headers that rename or resize, and numbers
out of range are refused. tarfile of the standard library is not used: it rounds times, loses attributes, guesses at
broken headers, and takes four times as long for each.

Source: POSIX.1-2017, pax, "pax Interchange Format"; GNU tar manual, "Basic Tar Format".
Imported by the unpacking child: standard library only.
"""

from __future__ import annotations

import enum
import os
import re
import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from nanocloud_dockyard.limits import UnpackLimits

_BLOCK = 512
_READ_BYTES = 256 << 10
_ZEROS = bytes(_BLOCK)
_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12s")
_PAX_TIME = re.compile(rb"(-?)([0-9]{1,12})(?:\.([0-9]{0,40}))?")
_DIGITS = re.compile(rb"[0-9]{1,20}")
_MAX_ID = (1 << 32) - 2  # 2^32-1 means "leave alone" to chown
_GLOBALS_REFUSED = (b"path", b"linkpath", b"size", b"GNU.sparse.", b"SCHILY.xattr.")


class LayerEntryError(Exception):
    """An entry that must not be applied; names the entry, escaped, and the rule."""


class LayerLimitError(Exception):
    """More bytes, entries or depth than allowed; names the limit."""


class Kind(enum.Enum):
    FILE = b"0"
    HARD_LINK = b"1"
    SYMLINK = b"2"
    CHARACTER_DEVICE = b"3"
    BLOCK_DEVICE = b"4"
    FOLDER = b"5"
    FIFO = b"6"


_KINDS = {kind.value: kind for kind in Kind} | {b"\0": Kind.FILE, b"7": Kind.FILE}


class Entry(NamedTuple):
    name: bytes
    """As written, without the slash that marks a folder."""
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    """Bytes of data that follow; 0 unless it is a file."""
    mtime_ns: int
    link: bytes
    device: tuple[int, int]
    xattrs: dict[str, bytes]


def shown(name: bytes) -> str:
    """A name from a tar, safe to print and of bounded length."""
    text = repr(name[:200])[2:-1]
    return text if len(name) <= 200 else text + "..."


class _Extended:
    """What pax and GNU extension headers say about the entry that follows."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.name: bytes | None = None
        self.link: bytes | None = None
        self.size = 0


class TarStream:
    """Iterate over the entries; ``copy_to`` writes the data of the current one. Unread data is skipped."""

    def __init__(self, stream: BinaryIO, limits: UnpackLimits) -> None:
        self._stream, self._limits = stream, limits
        self._buffer, self._at = b"", 0
        self._budget = limits.max_layer_bytes
        self._data = self._padding = 0
        self._headers = 0

    def __iter__(self) -> Iterator[Entry]:
        extended = _Extended()
        while (header := self._next_header()) is not None:
            self._headers += 1
            if self._headers > self._limits.max_entries:
                raise LayerLimitError(f"has more than {self._limits.max_entries} entries (max_entries)")
            fields = _fields(header)
            if fields[7] in b"xgLK":
                self._extend(extended, fields)
                continue
            entry = self._entry(fields, extended)
            self._begin(entry.size)
            yield entry
            extended = _Extended()
        if extended.size:
            raise LayerEntryError("ends after an extension header")
        self._drain()

    def copy_to(self, fd: int) -> None:
        """Write the current entry's data to ``fd``."""
        while self._data:
            if self._at == len(self._buffer):
                self._fill()
            end = min(self._at + self._data, len(self._buffer))
            with memoryview(self._buffer) as view:
                written = os.write(fd, view[self._at : end])
            self._at += written
            self._data -= written

    def _begin(self, size: int) -> None:
        if size > self._budget:
            raise self._too_big()
        self._data, self._padding = size, -size % _BLOCK

    def _next_header(self) -> bytes | None:
        """The next header block; None at the end of the archive, marked or not."""
        self._skip(self._data)
        self._data = 0
        # A stream may stop right after data: its digest says that it is whole, and builders leave padding out.
        padding, self._padding = self._padding, 0
        if self._more():
            self._skip(padding)
        if not self._more():
            return None
        block = self._exact(_BLOCK)
        return None if block == _ZEROS else block

    def _extend(self, extended: _Extended, fields: tuple[bytes, ...]) -> None:
        kind, size = fields[7], _number(fields[4], "size", fields[0])
        extended.size += size
        if size < 0 or extended.size > self._limits.max_header_bytes:
            raise LayerLimitError(
                f"has an extension header over {self._limits.max_header_bytes} bytes (max_header_bytes)"
            )
        self._begin(size)
        data = self._exact(size)
        self._data = 0
        if kind == b"L":
            extended.name = data.partition(b"\0")[0]
        elif kind == b"K":
            extended.link = data.partition(b"\0")[0]
        elif kind == b"x":
            extended.values.update(_records(data))
        elif bad := [key for key in _records(data) if key.startswith(_GLOBALS_REFUSED)]:
            raise LayerEntryError(f"has a global header that sets {shown(bad[0])}")

    def _entry(self, fields: tuple[bytes, ...], extended: _Extended) -> Entry:
        values = {key: value for key, value in extended.values.items() if value}
        name = values.get(b"path") or extended.name or _joined(fields)
        link = values.get(b"linkpath") or extended.link or fields[8].partition(b"\0")[0]
        if b"\0" in name or b"\0" in link:
            raise LayerEntryError(f"{shown(name)}: a name with a NUL byte")
        if fields[7] == b"S" or (values and any(key.startswith(b"GNU.sparse.") for key in values)):
            raise LayerEntryError(f"{shown(name)}: sparse files do not belong in layers")
        kind = _KINDS.get(fields[7])
        if kind is None:
            raise LayerEntryError(f"{shown(name)}: unknown entry type {shown(fields[7])}")
        if kind is Kind.FILE and name.endswith(b"/"):
            kind = Kind.FOLDER  # as v7 wrote them
        size = _decimal(values, b"size", name) if b"size" in values else _number(fields[4], "size", name)
        uid = _decimal(values, b"uid", name) if b"uid" in values else _number(fields[2], "uid", name)
        gid = _decimal(values, b"gid", name) if b"gid" in values else _number(fields[3], "gid", name)
        for what, value, most in (("size", size, 1 << 62), ("uid", uid, _MAX_ID), ("gid", gid, _MAX_ID)):
            if not 0 <= value <= most:
                raise LayerEntryError(f"{shown(name)}: {what} {value} is out of range")
        return Entry(
            name=name.rstrip(b"/") if kind is Kind.FOLDER else name,
            kind=kind,
            mode=_number(fields[1], "mode", name) & 0o7777,
            uid=uid,
            gid=gid,
            size=size if kind is Kind.FILE else 0,
            mtime_ns=_time(values, fields[5], name),
            link=link,
            device=_device(kind, fields, name),
            xattrs=_xattrs(values) if values else {},
        )

    def _more(self) -> bool:
        if self._at == len(self._buffer):
            self._fill(may_end=True)
        return self._at < len(self._buffer)

    def _fill(self, *, may_end: bool = False) -> None:
        """Replace the used-up buffer by the next piece of the stream."""
        self._buffer, self._at = self._stream.read(_READ_BYTES), 0
        self._budget -= len(self._buffer)
        if self._budget < 0:
            raise self._too_big()
        if not self._buffer and not may_end:
            raise LayerEntryError("ends in the middle of an entry")

    def _exact(self, size: int) -> bytes:
        if len(self._buffer) - self._at >= size:
            self._at += size
            return self._buffer[self._at - size : self._at]
        pieces = []
        while size:
            if self._at == len(self._buffer):
                self._fill()
            piece = self._buffer[self._at : self._at + size]
            self._at += len(piece)
            size -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def _skip(self, size: int) -> None:
        while size:
            if self._at == len(self._buffer):
                self._fill()
            step = min(size, len(self._buffer) - self._at)
            self._at += step
            size -= step

    def _drain(self) -> None:
        """Read on to the end of the stream: padding counts for the digest."""
        while self._more():
            self._at = len(self._buffer)

    def _too_big(self) -> LayerLimitError:
        return LayerLimitError(f"is over {self._limits.max_layer_bytes} bytes uncompressed (max_layer_bytes)")


def _fields(header: bytes) -> tuple[bytes, ...]:
    """name mode uid gid size mtime checksum type link magic uname gname major minor prefix rest."""
    fields: tuple[bytes, ...] = _HEADER.unpack(header)
    stated = _number(fields[6], "checksum", fields[0])
    if stated != sum(header) - sum(fields[6]) + 256:
        signed = sum(struct.unpack("512b", header)) - sum(struct.unpack("8b", fields[6])) + 256
        if stated != signed:
            raise LayerEntryError("has a header with a wrong checksum: it is no tar, or broken")
    return fields


def _joined(fields: tuple[bytes, ...]) -> bytes:
    name, magic, prefix = fields[0].partition(b"\0")[0], fields[9], fields[14]
    if magic[:6] != b"ustar\0":  # GNU and v7 have other things in the prefix's place
        return name
    if fields[15][8:] == b"tar\0":  # star keeps times in the last 24 bytes
        prefix = prefix[:131]
    prefix = prefix.partition(b"\0")[0]
    return prefix + b"/" + name if prefix else name


def _number(field: bytes, what: str, name: bytes) -> int:
    if field[0] & 0x80:  # base-256, two's complement below the marker bit
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    text = field.partition(b"\0")[0].strip(b" ")
    if text.translate(None, b"01234567"):
        raise LayerEntryError(f"{shown(name.partition(bytes(1))[0])}: {what} {shown(field)} is not a number")
    return int(text, 8) if text else 0


def _decimal(values: dict[bytes, bytes], key: bytes, name: bytes) -> int:
    if not _DIGITS.fullmatch(values[key]):
        raise LayerEntryError(f"{shown(name)}: {key.decode()} {shown(values[key])} is not a number")
    return int(values[key])


def _time(values: dict[bytes, bytes], field: bytes, name: bytes) -> int:
    if b"mtime" not in values:
        return _number(field, "mtime", name) * 1_000_000_000
    found = _PAX_TIME.fullmatch(values[b"mtime"])
    if not found:
        raise LayerEntryError(f"{shown(name)}: mtime {shown(values[b'mtime'])} is not a time")
    sign, whole, fraction = found.groups(b"")
    value = int(whole) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
    return -value if sign else value


def _device(kind: Kind, fields: tuple[bytes, ...], name: bytes) -> tuple[int, int]:
    if kind not in (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE):
        return 0, 0
    major, minor = _number(fields[12], "major", name), _number(fields[13], "minor", name)
    if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
        raise LayerEntryError(f"{shown(name)}: device {major}:{minor} is out of range")
    return major, minor


def _records(data: bytes) -> dict[bytes, bytes]:
    """``<length> <key>=<value>\\n``, the length counting all of it."""
    values: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 21)
        length = data[at:space] if space > 0 else b""
        end = at + int(length) if _DIGITS.fullmatch(length) else 0
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not (space + 2 < end <= len(data)) or data[end - 1 : end] != b"\n" or not equals or not key:
            raise LayerEntryError(f"has a broken pax header near {shown(data[at : at + 40])}")
        values[key] = value
        at = end
    return values


def _xattrs(values: dict[bytes, bytes]) -> dict[str, bytes]:
    prefix = b"SCHILY.xattr."
    return {os.fsdecode(key[len(prefix) :]): value for key, value in values.items() if key.startswith(prefix)}
