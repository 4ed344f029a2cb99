"""Reading: what one transaction of LMDB sees, which is one state of the store however long it is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, islice
from operator import attrgetter, itemgetter

import attrs
import lmdb
from nanocloud.errors import CompactedError, CorruptError, FutureRevisionError
from nanocloud.providers.storage import ChangePage, Record, RecordChange, RecordPage, StorageInfo

from nanocloud_storage_lmdb.places import first_place, group_of, last_place, place_of, short_key
from nanocloud_storage_lmdb.rows import (
    NEWEST,
    RESTORE,
    State,
    expiry_place,
    log_entry,
    log_revision,
    number,
    split_entry,
    state_entry,
    unpack_change,
    unpack_state,
)

_PAGE_BYTES = 4 << 20
"""A page of changes ends when it holds as much."""


@attrs.frozen
class Tables:
    states: lmdb._Database
    log: lmdb._Database
    expiry: lmdb._Database
    meta: lmdb._Database


@attrs.define
class View:
    txn: lmdb.Transaction[bytes]
    tables: Tables

    def number(self, name: bytes) -> int:
        """Of the table ``meta``."""
        stored = self.txn.get(name, db=self.tables.meta)
        if stored is None:
            raise CorruptError(f"the store does not say its {name.decode()}", hint=RESTORE)
        return number(stored)

    @property
    def revision(self) -> int:
        return self.number(b"revision")

    @property
    def compacted(self) -> int:
        return self.number(b"compacted")

    def info(self) -> StorageInfo:
        pages = page_bytes = 0
        for table in (self.tables.states, self.tables.log, self.tables.expiry, self.tables.meta):
            stat = self.txn.stat(table)
            pages += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
            page_bytes = stat["psize"]
        return StorageInfo(self.revision, self.compacted, pages * page_bytes)

    def get(self, key: bytes, revision: int | None) -> Record | None:
        self._check(revision)
        state = self.state_at(place_of(key), NEWEST if revision is None else revision)
        return None if state is None else state.record

    def range(self, start: bytes, end: bytes | None, limit: int | None, revision: int | None) -> RecordPage:
        self._check(revision)
        records = self._records(start, end, NEWEST if revision is None else revision)
        found = tuple(records if limit is None else islice(records, limit))
        return RecordPage(found, self.revision if revision is None else revision, next(records, None) is not None)

    def changes(self, start: bytes, end: bytes | None, after: int, limit: int) -> ChangePage:
        self._check(after)
        found: list[RecordChange] = []
        size = 0
        for revision, before, place in self._logged(after):
            if found and found[-1].revision != revision and (len(found) >= limit or size >= _PAGE_BYTES):
                return ChangePage(tuple(found), found[-1].revision)
            key = short_key(place)
            if key is None:
                key = self.state(place, revision).key
            if start <= key and (end is None or key < end):
                record = self.state(place, revision).record
                previous = self.state(place, before).record if before else None
                found.append(RecordChange(key, revision, record, previous))
                size += sum(len(there.value) for there in (record, previous) if there is not None)
        return ChangePage(tuple(found), self.revision)

    def expiring(self, limit: int) -> list[Record]:
        found = []
        for entry, revision in islice(self.txn.cursor(self.tables.expiry), limit):
            record = self.state(expiry_place(entry), number(revision)).record
            if record is None:
                raise CorruptError(f"the index of expiry names a deletion, {entry!r}", hint=RESTORE)
            found.append(record)
        return found

    def state_at(self, place: bytes, revision: int) -> State | None:
        """The last state at or before ``revision``."""
        cursor = self.txn.cursor(self.tables.states)
        if not cursor.set_range(state_entry(place, revision)):
            return None
        entry, row = cursor.item()
        return unpack_state(entry, row) if entry[:-8] == place else None

    def state(self, place: bytes, revision: int) -> State:
        """A state that is there because something refers to it."""
        entry = state_entry(place, revision)
        row = self.txn.get(entry, db=self.tables.states)
        if row is None:
            raise CorruptError(f"the state of revision {revision} at {place!r} is lost", hint=RESTORE)
        return unpack_state(entry, row)

    def _records(self, start: bytes, end: bytes | None, revision: int) -> Iterator[Record]:
        """In the order of their keys, which among long keys of one group is not that of their places."""
        for _, group in groupby(self._standing(start, end, revision), itemgetter(0)):
            for record in sorted((record for _, record in group), key=attrgetter("key")):
                if start <= record.key and (end is None or record.key < end):
                    yield record

    def _standing(self, start: bytes, end: bytes | None, revision: int) -> Iterator[tuple[bytes, Record]]:
        """Each record between the places, with its group. Later and earlier states of a key are leapt over."""
        cursor, stop = self.txn.cursor(self.tables.states), None if end is None else last_place(end)
        there = cursor.set_range(first_place(start))
        while there:
            entry = cursor.key()
            if stop is not None and entry >= stop:
                return
            place, written = split_entry(entry)
            if written > revision:
                there = cursor.set_range(state_entry(place, revision))
                continue
            record = unpack_state(entry, cursor.value()).record
            if record is not None:
                yield group_of(place), record
            there = cursor.next()
            if there and cursor.key()[:-8] == place:
                there = cursor.set_range(state_entry(place, 0))

    def _logged(self, after: int) -> Iterator[tuple[int, int, bytes]]:
        """Revision, revision of the state before, and place, of each change after a revision."""
        cursor = self.txn.cursor(self.tables.log)
        if cursor.set_range(log_entry(after + 1)):
            for entry, change in cursor:
                before, place = unpack_change(change)
                yield log_revision(entry), before, place

    def _check(self, requested: int | None) -> None:
        if requested is None:
            return
        if requested > (current := self.revision):
            raise FutureRevisionError(requested=requested, current=current)
        if requested < (compacted := self.compacted):
            raise CompactedError(requested=requested, compacted=compacted)
