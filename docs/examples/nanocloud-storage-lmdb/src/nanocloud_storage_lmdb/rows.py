"""The tables and their rows.

    states   place, revision (its complement)      → row of a state, see below
    log      revision, number of the operation     → revision of the state before (0: none), place
    expiry   expires_at, place                     → revision; existing records alone
    meta     format | revision | compacted         → number

*states* has every state since the last compaction, and every record that exists. The complement puts the newest state
of a key first: reading the present is one search. A row is

    checksum u32, kind u8, create revision u64, version u64, expires_at f64, length of the key u16, key, value

where the checksum is the CRC-32 of LMDB key and rest of the row (LMDB itself has none), kind says whether the state is
a deletion, and the key is there only where its place does not tell it. All numbers are big-endian, so that they sort.
"""

from __future__ import annotations

import struct
import zlib

import attrs
from nanocloud.errors import CorruptError
from nanocloud.providers.storage import Record

from nanocloud_storage_lmdb.places import short_key

_U64 = struct.Struct(">Q")
_LOG = struct.Struct(">QH")
_CHECKSUM = struct.Struct(">I")
_ROW = struct.Struct(">BQQdH")
_HEAD_BYTES = _CHECKSUM.size + _ROW.size
_DELETED, _FOREVER, _EXPIRING = range(3)

NEWEST = (1 << 64) - 1
"""As a revision: later than all."""


@attrs.frozen
class State:
    """What one transaction left of a key: a record, or None where it was deleted."""

    key: bytes
    record: Record | None


def number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def packed(value: int) -> bytes:
    return _U64.pack(value)


# ---- states


def state_entry(place: bytes, revision: int) -> bytes:
    """Sorts before those of earlier revisions."""
    return place + _U64.pack(NEWEST - revision)


def split_entry(entry: bytes) -> tuple[bytes, int]:
    return entry[:-8], NEWEST - number(entry[-8:])


def pack_state(entry: bytes, state: State) -> bytes:
    record, key = state.record, b"" if short_key(entry[:-8]) is not None else state.key
    if record is None:
        row = _ROW.pack(_DELETED, 0, 0, 0.0, len(key)) + key
    else:
        kind, expires_at = (_FOREVER, 0.0) if record.expires_at is None else (_EXPIRING, record.expires_at)
        row = _ROW.pack(kind, record.create_revision, record.version, expires_at, len(key)) + key + record.value
    return _CHECKSUM.pack(_checksum(entry, row)) + row


def unpack_state(entry: bytes, packed_row: bytes) -> State:
    """Raises CorruptError."""
    place, revision = split_entry(entry)
    row = packed_row[_CHECKSUM.size :]
    if len(packed_row) < _HEAD_BYTES or number(packed_row[: _CHECKSUM.size]) != _checksum(entry, row):
        raise CorruptError(f"the state of revision {revision} at {place!r} does not have its checksum", hint=RESTORE)
    kind, create_revision, version, expires_at, length = _ROW.unpack_from(row)
    value_at = _ROW.size + length
    key = row[_ROW.size : value_at] if length else short_key(place)
    if key is None:
        raise CorruptError(f"the state of revision {revision} at {place!r} has no key", hint=RESTORE)
    if kind == _DELETED:
        return State(key, None)
    expires = expires_at if kind == _EXPIRING else None
    return State(key, Record(key, row[value_at:], create_revision, revision, version, expires))


def _checksum(entry: bytes, row: bytes) -> int:
    return zlib.crc32(row, zlib.crc32(entry))


# ---- log


def log_entry(revision: int, operation: int = 0) -> bytes:
    return _LOG.pack(revision, operation)


def log_revision(entry: bytes) -> int:
    revision: int = _LOG.unpack(entry)[0]
    return revision


def pack_change(before: int, place: bytes) -> bytes:
    return _U64.pack(before) + place


def unpack_change(data: bytes) -> tuple[int, bytes]:
    return number(data[:8]), data[8:]


# ---- expiry


def expiry_entry(expires_at: float, place: bytes) -> bytes:
    """Sorts by time, also before the epoch: a double sorts as its bits do once the sign says which of them to turn."""
    bits = number(struct.pack(">d", expires_at))
    return _U64.pack(NEWEST - bits if bits >> 63 else bits | 1 << 63) + place


def expiry_place(entry: bytes) -> bytes:
    return entry[8:]


RESTORE = "restore it from a backup"
