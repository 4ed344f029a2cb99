"""Writing: what one transaction of LMDB changes, for a group of the keyspace's transactions or a step of compaction."""

from __future__ import annotations

from collections.abc import Sequence

from nanocloud.errors import FutureRevisionError
from nanocloud.providers.storage import Committed, Record, RecordDelete, RecordPut, Rejected, Transaction

from nanocloud_storage_lmdb.places import place_of
from nanocloud_storage_lmdb.rows import (
    NEWEST,
    State,
    expiry_entry,
    log_entry,
    log_revision,
    pack_change,
    pack_state,
    packed,
    state_entry,
    unpack_change,
)
from nanocloud_storage_lmdb.view import View


class Change(View):
    """A view that can be changed; it sees what was changed in it before."""

    def transact(self, transaction: Transaction) -> Committed | Rejected:
        """All that can be refused is read before anything is written: who is refused disturbs no other."""
        for check in transaction.checks:
            actual = _revision_of(self._present(check.key))
            if actual != check.mod_revision:
                return Rejected(check.key, check.mod_revision, actual)
        befores = [self._present(operation.key) for operation in transaction.operations]
        revision = self.revision + 1
        afters = [_after(*pair, revision) for pair in zip(transaction.operations, befores, strict=True)]
        changed = self._write(revision, transaction.operations, befores, afters)
        if changed:
            self.txn.put(b"revision", packed(revision), db=self.tables.meta)
        return Committed(revision if changed else revision - 1, changed, tuple(afters))

    def mark_compacted(self, revision: int) -> None:
        """From here on nobody reads what was before ``revision``. Raises FutureRevisionError."""
        if revision > (current := self.revision):
            raise FutureRevisionError(requested=revision, current=current)
        if revision > self.compacted:
            self.txn.put(b"compacted", packed(revision), db=self.tables.meta)

    def sweep(self, *, limit: int) -> bool:
        """Drop up to ``limit`` changes that are compacted, and the states that nobody can read without them.

        A change that is forgotten ends the state before it; a deletion is no state worth keeping either. So the log
        alone says what goes, and nothing has to be searched. Returns whether there was as much as that.
        """
        compacted, cursor, swept = self.compacted, self.txn.cursor(self.tables.log), 0
        there = cursor.first()
        while there and swept < limit and (revision := log_revision(cursor.key())) <= compacted:
            before, place = unpack_change(cursor.value())
            deletion = self.state(place, revision).record is None
            if before:
                self.txn.delete(state_entry(place, before), db=self.tables.states)
            if deletion:
                self.txn.delete(state_entry(place, revision), db=self.tables.states)
            cursor.delete()  # and stand at the next, which is b"" where there is none
            there = cursor.key() != b""
            swept += 1
        return swept == limit

    def _present(self, key: bytes) -> Record | None:
        state = self.state_at(place_of(key), NEWEST)
        return None if state is None else state.record

    def _write(
        self,
        revision: int,
        operations: Sequence[RecordPut | RecordDelete],
        befores: Sequence[Record | None],
        afters: Sequence[Record | None],
    ) -> int:
        changed = 0
        for index, (operation, before, after) in enumerate(zip(operations, befores, afters, strict=True)):
            if before is None and after is None:
                continue
            changed += 1
            place = place_of(operation.key)
            entry = state_entry(place, revision)
            self.txn.put(entry, pack_state(entry, State(operation.key, after)), db=self.tables.states)
            self.txn.put(log_entry(revision, index), pack_change(_revision_of(before), place), db=self.tables.log)
            if before is not None and before.expires_at is not None:
                self.txn.delete(expiry_entry(before.expires_at, place), db=self.tables.expiry)
            if after is not None and after.expires_at is not None:
                self.txn.put(expiry_entry(after.expires_at, place), packed(revision), db=self.tables.expiry)
        return changed


def _revision_of(record: Record | None) -> int:
    return 0 if record is None else record.mod_revision


def _after(operation: RecordPut | RecordDelete, before: Record | None, revision: int) -> Record | None:
    if isinstance(operation, RecordDelete):
        return None
    created, version = (revision, 1) if before is None else (before.create_revision, before.version + 1)
    return Record(operation.key, operation.value, created, revision, version, operation.expires_at)
