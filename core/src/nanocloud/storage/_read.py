"""What reading connections do. Every function reads from one snapshot and returns plain contract types."""

# ruff: noqa: S608 - statements are put together from the constants below; every value is bound.

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nanocloud.errors import CompactedError, FutureRevisionError
from nanocloud.providers.storage import ChangePage, Record, RecordChange, RecordPage, StorageInfo
from nanocloud.storage._schema import POSITION_BITS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

PAGE_BYTES = 4 << 20
"""A page of changes ends when its values are this large, whatever its limit."""

# Column order: Record's fields.
_FIELDS = f"log.value, log.create_revision, log.id >> {POSITION_BITS}, log.version, log.expires_at"
_GET = f"SELECT kv.key, {_FIELDS} FROM kv JOIN log ON log.id = kv.id WHERE kv.key = ? AND log.value IS NOT NULL"
# Walks from the newest row back to the first that is older than the bound. A row that is missing on that way was a
# tombstone: a compaction removes nothing else that a readable revision needs.
_ROW_AT = """(
    WITH RECURSIVE chain (id) AS (
        SELECT kv.id
        UNION ALL
        SELECT older.prev FROM chain JOIN log AS older ON older.id = chain.id WHERE chain.id >= ?
    )
    SELECT id FROM chain WHERE id < ?
)"""
_GET_AT = f"SELECT kv.key, {_FIELDS} FROM kv JOIN log ON log.id = {_ROW_AT} WHERE kv.key = ? AND log.value IS NOT NULL"
_RANGE = f"SELECT kv.key, {_FIELDS} FROM kv JOIN log ON log.id = kv.id WHERE kv.key >= ?"
_RANGE_AT = f"SELECT kv.key, {_FIELDS} FROM kv JOIN log ON log.id = {_ROW_AT} WHERE kv.key >= ?"
_CHANGES = f"""
SELECT log.key, {_FIELDS},
       prev.value, prev.create_revision, prev.id >> {POSITION_BITS}, prev.version, prev.expires_at
FROM log LEFT JOIN log AS prev ON prev.id = log.prev AND prev.value IS NOT NULL
WHERE log.id >= ? AND log.key >= ?
"""
_EXPIRING = f"""
SELECT kv.key, {_FIELDS} FROM kv JOIN log ON log.id = kv.id
WHERE kv.expires_at IS NOT NULL ORDER BY kv.expires_at LIMIT ?
"""


@contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[tuple[int, int]]:
    """Read inside from one state of the store; gives its (revision, compacted)."""
    connection.execute("BEGIN")
    try:
        yield connection.execute(
            "SELECT coalesce(max(id), 0) >> ?, (SELECT value FROM meta WHERE name = 'compacted') FROM log",
            (POSITION_BITS,),
        ).fetchone()
    finally:
        connection.execute("ROLLBACK")


def _check(requested: int, revision: int, compacted: int) -> None:
    if requested > revision:
        raise FutureRevisionError(requested=requested, current=revision)
    if requested < compacted:
        raise CompactedError(requested=requested, compacted=compacted)


def info(connection: sqlite3.Connection) -> StorageInfo:
    with _snapshot(connection) as (revision, compacted):
        (size_bytes,) = connection.execute(
            "SELECT (page_count - freelist_count) * page_size"
            " FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
        ).fetchone()
    return StorageInfo(revision, compacted, size_bytes)


def get(connection: sqlite3.Connection, key: bytes) -> Record | None:
    row = connection.execute(_GET, (key,)).fetchone()
    return None if row is None else Record(*row)


def get_at(connection: sqlite3.Connection, key: bytes, revision: int) -> Record | None:
    bound = (revision + 1) << POSITION_BITS
    with _snapshot(connection) as (current, compacted):
        _check(revision, current, compacted)
        row = connection.execute(_GET_AT, (bound, bound, key)).fetchone()
    return None if row is None else Record(*row)


def read_range(
    connection: sqlite3.Connection, start: bytes, end: bytes | None, limit: int | None, revision: int | None
) -> RecordPage:
    if revision is None:
        sql, values = _RANGE, [start]
    else:
        bound = (revision + 1) << POSITION_BITS
        sql, values = _RANGE_AT, [bound, bound, start]  # type: ignore[list-item]
    if end is not None:
        sql += " AND kv.key < ?"
        values.append(end)
    sql += " AND log.value IS NOT NULL ORDER BY kv.key"
    with _snapshot(connection) as (current, compacted):
        _check(current if revision is None else revision, current, compacted)
        cursor = connection.execute(sql, values)
        rows = cursor.fetchall() if limit is None else cursor.fetchmany(limit + 1)
        cursor.close()
    more = limit is not None and len(rows) > limit
    return RecordPage(tuple(Record(*row) for row in rows[:limit]), current if revision is None else revision, more)


def changes(connection: sqlite3.Connection, start: bytes, end: bytes | None, after: int, limit: int) -> ChangePage:
    sql, values = _CHANGES, [(after + 1) << POSITION_BITS, start]
    if end is not None:
        sql += " AND log.key < ?"
        values.append(end)
    found: list[RecordChange] = []
    size_bytes = last = 0
    with _snapshot(connection) as (through, compacted):
        _check(after, through, compacted)
        cursor = connection.execute(f"{sql} ORDER BY log.id", values)
        for row in cursor:
            change = _change(row)
            if change.revision != last:
                if len(found) >= limit or size_bytes >= PAGE_BYTES:
                    through = last
                    break
                last = change.revision
            found.append(change)
            size_bytes += len(row[1] or b"") + len(row[6] or b"")
        cursor.close()
    return ChangePage(tuple(found), through)


def _change(row: tuple[Any, ...]) -> RecordChange:
    key = row[0]
    record = None if row[1] is None else Record(*row[:6])
    previous = None if row[6] is None else Record(key, *row[6:])
    return RecordChange(key, row[3], record, previous)


def expiring(connection: sqlite3.Connection, limit: int) -> list[Record]:
    return [Record(*row) for row in connection.execute(_EXPIRING, (limit,))]
