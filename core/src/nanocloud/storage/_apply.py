"""What the writing connection does inside its SQLite transactions: apply a transaction, raise the floor, sweep.

Nothing here begins or commits: the writer groups these calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nanocloud.providers.storage import Committed, Record, RecordChange, RecordPut, Rejected
from nanocloud.storage._schema import POSITION_BITS

if TYPE_CHECKING:
    import sqlite3

    from nanocloud.providers.storage import RecordDelete, Transaction

_MOD_REVISION = """
SELECT log.id, log.value IS NULL FROM kv JOIN log ON log.id = kv.id WHERE kv.key = ?
"""
_NEWEST = """
SELECT log.id, log.create_revision, log.version, log.expires_at, log.value
FROM kv JOIN log ON log.id = kv.id WHERE kv.key = ?
"""
_APPEND = "INSERT INTO log (id, key, prev, create_revision, version, expires_at, value) VALUES (?, ?, ?, ?, ?, ?, ?)"
_POINT = """
INSERT INTO kv (key, id, expires_at) VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET id = excluded.id, expires_at = excluded.expires_at
"""


def apply(
    connection: sqlite3.Connection, transaction: Transaction, revision: int
) -> tuple[Committed | Rejected, list[RecordChange]]:
    """Apply one transaction on top of ``revision``; with it what changed. A rejected one has written nothing."""
    for check in transaction.checks:
        newest = connection.execute(_MOD_REVISION, (check.key,)).fetchone()
        actual = 0 if newest is None or newest[1] else newest[0] >> POSITION_BITS
        if actual != check.mod_revision:
            return Rejected(check.key, check.mod_revision, actual), []
    changes: list[RecordChange] = []
    records: list[Record | None] = []
    for operation in transaction.operations:
        row_id = (revision + 1) << POSITION_BITS | len(changes)
        if isinstance(operation, RecordPut):
            change: RecordChange | None = _put(connection, operation, row_id)
        else:
            change = _delete(connection, operation, row_id)
        if change is not None:
            changes.append(change)
        records.append(None if change is None else change.record)
    return Committed(revision + 1 if changes else revision, len(changes), tuple(records)), changes


def _put(connection: sqlite3.Connection, put: RecordPut, row_id: int) -> RecordChange:
    key, revision = put.key, row_id >> POSITION_BITS
    replaced, previous = _replaced(connection, key)
    created, version = (previous.create_revision, previous.version + 1) if previous else (revision, 1)
    connection.execute(_APPEND, (row_id, key, replaced, created, version, put.expires_at, put.value))
    connection.execute(_POINT, (key, row_id, put.expires_at))
    record = Record(key, put.value, created, revision, version, put.expires_at)
    return RecordChange(key, revision, record, previous)


def _delete(connection: sqlite3.Connection, delete: RecordDelete, row_id: int) -> RecordChange | None:
    replaced, previous = _replaced(connection, delete.key)
    if previous is None:
        return None
    connection.execute(_APPEND, (row_id, delete.key, replaced, 0, 0, None, None))
    connection.execute(_POINT, (delete.key, row_id, None))
    return RecordChange(delete.key, row_id >> POSITION_BITS, None, previous)


def _replaced(connection: sqlite3.Connection, key: bytes) -> tuple[int, Record | None]:
    """The id of the row that a new one replaces (0: none), and its record (None: there is none, or a tombstone)."""
    newest = connection.execute(_NEWEST, (key,)).fetchone()
    if newest is None:
        return 0, None
    row_id, created, version, expires_at, value = newest
    return row_id, None if value is None else Record(key, value, created, row_id >> POSITION_BITS, version, expires_at)


def raise_floor(connection: sqlite3.Connection, revision: int) -> None:
    """Make history before ``revision`` unreadable, in one small write. The rows go in ``sweep``."""
    connection.execute("UPDATE meta SET value = ? WHERE name = 'compacted' AND value < ?", (revision, revision))


def sweep_range(connection: sqlite3.Connection) -> tuple[int, int]:
    """(swept, compacted): where the sweep stands and where it must get to."""
    numbers = dict(connection.execute("SELECT name, value FROM meta").fetchall())
    return numbers["swept"], numbers["compacted"]


def sweep(connection: sqlite3.Connection, first: int, last: int) -> None:
    """Remove what revisions ``first`` to ``last``, all compacted, made superfluous.

    A row is superfluous if a row that replaced it is compacted too, or if it is a compacted tombstone. ``first`` was
    swept before: its tombstone may have been the newest row then, which has to stay (see _schema.py).
    """
    low, high = first << POSITION_BITS, (last + 1) << POSITION_BITS
    connection.execute("DELETE FROM log WHERE id IN (SELECT prev FROM log WHERE id >= ? AND id < ?)", (low, high))
    tombstones = connection.execute(
        "SELECT key, id FROM log WHERE id >= ? AND id < ? AND value IS NULL AND id < (SELECT max(id) FROM log)",
        (low, high),
    ).fetchall()
    connection.executemany("DELETE FROM kv WHERE key = ? AND id = ?", tombstones)
    connection.executemany("DELETE FROM log WHERE id = ?", ((row_id,) for _, row_id in tombstones))
    connection.execute("UPDATE meta SET value = ? WHERE name = 'swept'", (last,))
