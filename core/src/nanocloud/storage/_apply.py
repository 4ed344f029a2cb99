"""What the writing connection does inside its SQLite transactions: apply a transaction, raise the floor, sweep.

Nothing here begins or commits: the writer groups these calls.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import chain
from typing import TYPE_CHECKING

from nanocloud.providers.storage import Committed, Record, RecordChange, RecordPut, Rejected
from nanocloud.storage._schema import POSITION_BITS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from nanocloud.providers.storage import RecordDelete, Transaction

_NEWEST_BYTES = 2 << 20
_OVERHEAD_BYTES = 256  # of the objects around a value
State = tuple[int, Record | None]
Value = bytes | int | float | None
_NEWEST = """
SELECT log.id, log.create_revision, log.version, log.expires_at, log.value
FROM kv JOIN log ON log.id = kv.id WHERE kv.key = ?
"""
_APPEND = "INSERT INTO log (id, key, prev, create_revision, version, expires_at, value) VALUES "
_APPENDED = "(?, ?, ?, ?, ?, ?, ?)"
_POINT = "INSERT INTO kv (key, id, expires_at) VALUES "
_POINTED = "(?, ?, ?)"
_REPOINT = " ON CONFLICT (key) DO UPDATE SET id = excluded.id, expires_at = excluded.expires_at"
# How many rows a statement has: SQLite writes them faster than one by one, and lets go of the interpreter, and has to
# get it back, once a statement. Few numbers, so that the statements stay prepared.
_COUNTS = (64, 16, 4)
_APPENDS = {count: _APPEND + ", ".join([_APPENDED] * count) for count in (1, *_COUNTS)}
_POINTS = {count: _POINT + ", ".join([_POINTED] * count) + _REPOINT for count in (1, *_COUNTS)}


class Group:
    """Transactions on their way into one commit: each is decided on what those before it leave, and all are written
    together at the end, which SQLite does in half the time."""

    def __init__(self, connection: sqlite3.Connection, newest: Newest, revision: int) -> None:
        self._connection, self._kept = connection, newest
        self.revision = revision
        """Of the last transaction that changed something."""
        self._newest: dict[bytes, State] = {}
        self._rows: list[tuple[int, bytes, int, int, int, float | None, bytes | None]] = []

    def apply(self, transaction: Transaction) -> tuple[Committed | Rejected, list[RecordChange]]:
        """Decide one transaction; with the outcome what changes. A rejected one changes nothing."""
        for check in transaction.checks:
            _, record = self._state(check.key)
            actual = 0 if record is None else record.mod_revision
            if actual != check.mod_revision:
                return Rejected(check.key, check.mod_revision, actual), []
        changes: list[RecordChange] = []
        records: list[Record | None] = []
        for operation in transaction.operations:
            row_id = (self.revision + 1) << POSITION_BITS | len(changes)
            change = (
                self._put(operation, row_id) if isinstance(operation, RecordPut) else self._delete(operation, row_id)
            )
            if change is not None:
                changes.append(change)
            records.append(None if change is None else change.record)
        self.revision += bool(changes)
        return Committed(self.revision, len(changes), tuple(records)), changes

    def write(self) -> None:
        _insert(self._connection, _APPENDS, self._rows)
        points = [
            (key, row_id, None if record is None else record.expires_at)
            for key, (row_id, record) in self._newest.items()
        ]
        _insert(self._connection, _POINTS, points)

    def keep(self) -> None:
        """It is committed."""
        for key, state in self._newest.items():
            self._kept.put(key, state)

    def _state(self, key: bytes) -> State:
        """The row that leads to a key's present state, and its record; (0, None) for a key that has no row."""
        return self._newest.get(key) or self._kept.get(key) or _read_state(self._connection, key)

    def _put(self, put: RecordPut, row_id: int) -> RecordChange:
        key, revision = put.key, row_id >> POSITION_BITS
        replaced, previous = self._state(key)
        created, version = (previous.create_revision, previous.version + 1) if previous else (revision, 1)
        self._rows.append((row_id, key, replaced, created, version, put.expires_at, put.value))
        record = Record(key, put.value, created, revision, version, put.expires_at)
        self._newest[key] = row_id, record
        return RecordChange(key, revision, record, previous)

    def _delete(self, delete: RecordDelete, row_id: int) -> RecordChange | None:
        replaced, previous = self._state(delete.key)
        if previous is None:
            return None
        self._rows.append((row_id, delete.key, replaced, 0, 0, None, None))
        self._newest[delete.key] = row_id, None
        return RecordChange(delete.key, row_id >> POSITION_BITS, None, previous)


class Newest:
    """The states of the keys that were written last, so that writing them again reads nothing. Bounded in bytes."""

    def __init__(self) -> None:
        self._states: OrderedDict[bytes, State] = OrderedDict()
        self._size_bytes = 0

    def get(self, key: bytes) -> State | None:
        return self._states.get(key)

    def put(self, key: bytes, state: State) -> None:
        if (old := self._states.pop(key, None)) is not None:
            self._size_bytes -= _size_bytes(old)
        if state[1] is None:
            return  # a tombstone, which a sweep may remove
        self._states[key] = state
        self._size_bytes += _size_bytes(state)
        while self._size_bytes > _NEWEST_BYTES:
            self._size_bytes -= _size_bytes(self._states.popitem(last=False)[1])


def _size_bytes(state: State) -> int:
    record = state[1]
    return _OVERHEAD_BYTES + (len(record.value) if record else 0)


def _insert(connection: sqlite3.Connection, statements: dict[int, str], rows: Sequence[tuple[Value, ...]]) -> None:
    done, left = 0, len(rows)
    for count in _COUNTS:
        while left >= count:
            connection.execute(statements[count], [*chain.from_iterable(rows[done : done + count])])
            done, left = done + count, left - count
    if left:
        connection.executemany(statements[1], rows[done:])


def _read_state(connection: sqlite3.Connection, key: bytes) -> State:
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
