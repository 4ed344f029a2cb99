"""What the writing connection does inside its SQLite transactions: apply a transaction, raise the floor, sweep.

Nothing here begins or commits: the writer groups these calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nanocloud.providers.storage import Committed, Record, RecordPut, Rejected
from nanocloud.storage._schema import POSITION_BITS

if TYPE_CHECKING:
    import sqlite3

    from nanocloud.providers.storage import RecordDelete, Transaction

_NEWEST = """
SELECT log.id, log.create_revision, log.version, log.value IS NULL
FROM kv JOIN log ON log.id = kv.id WHERE kv.key = ?
"""
_APPEND = "INSERT INTO log (id, key, prev, create_revision, version, expires_at, value) VALUES (?, ?, ?, ?, ?, ?, ?)"
_POINT = """
INSERT INTO kv (key, id, expires_at) VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET id = excluded.id, expires_at = excluded.expires_at
"""


def apply(connection: sqlite3.Connection, transaction: Transaction, revision: int) -> Committed | Rejected:
    """Apply one transaction on top of ``revision``. A rejected one has written nothing."""
    for check in transaction.checks:
        newest = connection.execute(_NEWEST, (check.key,)).fetchone()
        actual = 0 if newest is None or newest[3] else newest[0] >> POSITION_BITS
        if actual != check.mod_revision:
            return Rejected(check.key, check.mod_revision, actual)
    records: list[Record | None] = []
    changed = 0
    for operation in transaction.operations:
        row_id = (revision + 1) << POSITION_BITS | changed
        if isinstance(operation, RecordPut):
            records.append(_put(connection, operation, row_id))
            changed += 1
        else:
            records.append(None)
            changed += _delete(connection, operation, row_id)
    return Committed(revision + 1 if changed else revision, changed, tuple(records))


def _put(connection: sqlite3.Connection, put: RecordPut, row_id: int) -> Record:
    revision = row_id >> POSITION_BITS
    prev, created, version = 0, revision, 1
    if newest := connection.execute(_NEWEST, (put.key,)).fetchone():
        prev = newest[0]
        if not newest[3]:
            created, version = newest[1], newest[2] + 1
    connection.execute(_APPEND, (row_id, put.key, prev, created, version, put.expires_at, put.value))
    connection.execute(_POINT, (put.key, row_id, put.expires_at))
    return Record(put.key, put.value, created, revision, version, put.expires_at)


def _delete(connection: sqlite3.Connection, delete: RecordDelete, row_id: int) -> bool:
    newest = connection.execute(_NEWEST, (delete.key,)).fetchone()
    if newest is None or newest[3]:
        return False
    connection.execute(_APPEND, (row_id, delete.key, newest[0], 0, 0, None, None))
    connection.execute(_POINT, (delete.key, row_id, None))
    return True


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
