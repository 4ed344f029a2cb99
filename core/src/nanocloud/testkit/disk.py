"""FakeDisk: what of a storage outlives the process, with every revision since the last compaction.

A disk has what was synced, and nothing else: a transaction reaches it whole, when the storage that has it open says so,
and a crash loses what was still on the way. Nothing here waits.
"""

from __future__ import annotations

import heapq
import os
from bisect import bisect_left, bisect_right, insort
from operator import attrgetter
from typing import TYPE_CHECKING

from nanocloud.errors import CompactedError, FutureRevisionError, LockedError
from nanocloud.providers.storage import (
    ChangePage,
    Committed,
    Record,
    RecordChange,
    RecordPage,
    RecordPut,
    Rejected,
    StorageInfo,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from nanocloud.providers.storage import RecordDelete, Transaction

_PAGE_BYTES = 4 << 20


class FakeDisk:
    """Give it to one FakeStorage after another: each finds what the one before made durable."""

    def __init__(self) -> None:
        self.in_flight: Sequence[Transaction] = ()
        """Being synced now: written in this order, and not durable yet."""
        self.crashes = 0
        """A storage that was opened before the last crash is dead: it reads and writes nothing any more."""
        self.observers: list[Callable[[Sequence[RecordChange]], None]] = []
        """Told of the changes of each transaction in the moment it becomes durable."""
        self._holder: object | None = None
        self._revision = self._compacted = 0
        self._keys: list[bytes] = []  # all that have a state, sorted
        self._states: dict[bytes, list[tuple[int, Record | None]]] = {}  # by revision; None: deleted
        self._changes: list[RecordChange] = []
        self._leases: dict[bytes, Record] = {}  # existing records that expire

    def crash(self, *, survivors: int = 0) -> None:
        """Cut the power. Of what is in flight the first ``survivors`` transactions got through, unacknowledged."""
        for transaction in self.in_flight[:survivors]:
            self.apply(transaction)
        self.in_flight = ()
        self.crashes += 1
        self._holder = None

    def hold(self, holder: object) -> None:
        """Raises LockedError where another has it open."""
        if self._holder is not None:
            raise LockedError(f"the fake disk is in use by process {os.getpid()}", hint="close that storage first")
        self._holder = holder

    def let_go(self, holder: object) -> None:
        if self._holder is holder:
            self._holder = None

    @property
    def revision(self) -> int:
        return self._revision

    def info(self) -> StorageInfo:
        return StorageInfo(self._revision, self._compacted, sum(map(_size_bytes, self._rows())))

    # ---- writing -----------------------------------------------------------------------------------------------------

    def apply(self, transaction: Transaction) -> Committed | Rejected:
        """Check and change, durably, against the state that all earlier ones left."""
        for check in transaction.checks:
            newest = self._newest(check.key)
            actual = 0 if newest is None else newest.mod_revision
            if actual != check.mod_revision:
                return Rejected(check.key, check.mod_revision, actual)
        revision, records, changes = self._revision + 1, [], []
        for operation in transaction.operations:
            before = self._newest(operation.key)
            record = _next_record(operation, before, revision)
            records.append(record)
            if record is not None or before is not None:
                changes.append(RecordChange(operation.key, revision, record, before))
        for change in changes:
            self._keep(change)
        if changes:
            self._revision = revision
            for observe in self.observers:
                observe(changes)
        return Committed(self._revision, len(changes), tuple(records))

    def _keep(self, change: RecordChange) -> None:
        if (states := self._states.get(change.key)) is None:
            states = self._states[change.key] = []
            insort(self._keys, change.key)
        states.append((change.revision, change.record))
        self._changes.append(change)
        if change.record is not None and change.record.expires_at is not None:
            self._leases[change.key] = change.record
        else:
            self._leases.pop(change.key, None)

    def compact(self, revision: int) -> None:
        """Raises FutureRevisionError."""
        if revision > self._revision:
            raise FutureRevisionError(requested=revision, current=self._revision)
        if revision <= self._compacted:
            return
        self._compacted = revision
        forgotten = bisect_right(self._changes, revision, key=attrgetter("revision"))
        for key in {change.key for change in self._changes[:forgotten]}:
            self._forget(key, revision)
        del self._changes[:forgotten]

    def _forget(self, key: bytes, revision: int) -> None:
        """The states of a key before the one that holds at ``revision``; that one too if it is a deletion."""
        states = self._states[key]
        position = _position_at(states, revision)
        del states[: position + (states[position][1] is None)]
        if not states:
            del self._states[key]
            del self._keys[bisect_left(self._keys, key)]

    # ---- reading -----------------------------------------------------------------------------------------------------

    def get(self, key: bytes, revision: int | None) -> Record | None:
        """Raises CompactedError, FutureRevisionError."""
        if revision is None:
            return self._newest(key)
        self._check(revision)
        return self._state_at(key, revision)

    def range(
        self, start: bytes, end: bytes | None, limit: int | None = None, revision: int | None = None
    ) -> RecordPage:
        """Raises CompactedError, FutureRevisionError."""
        if revision is not None:
            self._check(revision)
        at = self._revision if revision is None else revision
        records: list[Record] = []
        for key in self._between(start, end):
            if (record := self._state_at(key, at)) is None:
                continue
            if len(records) == limit:
                return RecordPage(tuple(records), at, more=True)
            records.append(record)
        return RecordPage(tuple(records), at, more=False)

    def changes(self, start: bytes, end: bytes | None, after: int, limit: int) -> ChangePage:
        """Raises CompactedError, FutureRevisionError."""
        self._check(after)
        found: list[RecordChange] = []
        size_bytes = last = 0
        for position in range(bisect_right(self._changes, after, key=attrgetter("revision")), len(self._changes)):
            change = self._changes[position]
            if change.key < start or (end is not None and change.key >= end):
                continue
            if change.revision != last and (len(found) >= limit or size_bytes >= _PAGE_BYTES):
                return ChangePage(tuple(found), last)
            last = change.revision
            found.append(change)
            size_bytes += sum(len(state.value) for state in (change.record, change.previous) if state is not None)
        return ChangePage(tuple(found), self._revision)

    def expiring(self, limit: int) -> Sequence[Record]:
        return heapq.nsmallest(limit, self._leases.values(), key=lambda record: (record.expires_at, record.key))

    def _check(self, revision: int) -> None:
        if revision > self._revision:
            raise FutureRevisionError(requested=revision, current=self._revision)
        if revision < self._compacted:
            raise CompactedError(requested=revision, compacted=self._compacted)

    def _newest(self, key: bytes) -> Record | None:
        states = self._states.get(key)
        return states[-1][1] if states else None

    def _state_at(self, key: bytes, revision: int) -> Record | None:
        states = self._states.get(key, [])
        if states and states[-1][0] <= revision:
            return states[-1][1]
        position = _position_at(states, revision)
        return states[position][1] if position >= 0 else None

    def _between(self, start: bytes, end: bytes | None) -> Iterator[bytes]:
        for position in range(bisect_left(self._keys, start), len(self._keys)):
            if end is not None and self._keys[position] >= end:
                return
            yield self._keys[position]

    def _rows(self) -> Iterator[tuple[bytes, Record | None]]:
        return ((key, record) for key, states in self._states.items() for _, record in states)


def shown_key(key: bytes) -> str:
    """As messages of the keyspace name it."""
    return "/" + key.decode(errors="backslashreplace").rstrip("\x00").replace("\x00", "/")


def _next_record(operation: RecordPut | RecordDelete, before: Record | None, revision: int) -> Record | None:
    if not isinstance(operation, RecordPut):
        return None
    created, version = (revision, 1) if before is None else (before.create_revision, before.version + 1)
    return Record(operation.key, operation.value, created, revision, version, operation.expires_at)


def _position_at(states: Sequence[tuple[int, Record | None]], revision: int) -> int:
    """Of the state that holds at ``revision``; -1: there was none yet."""
    return bisect_right(states, revision, key=lambda state: state[0]) - 1


def _size_bytes(row: tuple[bytes, Record | None]) -> int:
    key, record = row
    return len(key) + (0 if record is None else len(record.value))
