"""Random histories of transactions, compactions and restarts, compared with dicts that remember every revision."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import attrs
import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from nanocloud.providers.storage import (
    Committed,
    Record,
    RecordChange,
    RecordCheck,
    RecordDelete,
    RecordPut,
    Rejected,
    StorageProvider,
    Transaction,
)
from nanocloud.storage import SqliteStorage
from nanocloud.testkit import FakeDisk, FakeStorage

KEYS = [b"a", b"a\x00", b"a\x00b", b"b", b"\xff"]


@attrs.frozen
class Compact:
    share: float  # of the revisions that are there


@attrs.frozen
class Reopen:
    pass


@attrs.frozen
class Transact:
    checks: tuple[tuple[bytes, int], ...]  # key and how far off: 0 is a check that holds
    operations: tuple[RecordPut | RecordDelete, ...]


Step: TypeAlias = Compact | Reopen | Transact

keys = st.sampled_from(KEYS)
puts = st.builds(RecordPut, keys, st.binary(max_size=3), st.none() | st.floats(1, 9, width=16))
operations = st.lists(puts | st.builds(RecordDelete, keys), max_size=4, unique_by=lambda operation: operation.key)
checks = st.lists(st.tuples(keys, st.sampled_from([0, 0, 0, 0, 1])), max_size=2)
transacts = st.builds(Transact, checks.map(tuple), operations.map(tuple))
steps = st.lists(
    transacts | transacts | transacts | st.builds(Compact, st.floats(0, 1)) | st.builds(Reopen), max_size=25
)


class Model:
    """``states[r]`` is the whole map at revision r."""

    def __init__(self) -> None:
        self.states: list[dict[bytes, Record]] = [{}]
        self.changes: list[RecordChange] = []
        self.compacted = 0

    @property
    def revision(self) -> int:
        return len(self.states) - 1

    def mod_revision(self, key: bytes) -> int:
        return self.states[-1][key].mod_revision if key in self.states[-1] else 0

    def transact(self, transaction: Transaction) -> Committed | Rejected:
        for check in transaction.checks:
            if (actual := self.mod_revision(check.key)) != check.mod_revision:
                return Rejected(check.key, check.mod_revision, actual)
        state, revision, results, changed = dict(self.states[-1]), self.revision + 1, [], 0
        for operation in transaction.operations:
            old = state.pop(operation.key, None)
            new = None
            if isinstance(operation, RecordPut):
                created, version = (old.create_revision, old.version + 1) if old else (revision, 1)
                new = Record(operation.key, operation.value, created, revision, version, operation.expires_at)
                state[operation.key] = new
            results.append(new)
            if old or new:
                changed += 1
                self.changes.append(RecordChange(operation.key, revision, new, old))
        if changed:
            self.states.append(state)
        return Committed(self.revision, changed, tuple(results))


Place: TypeAlias = "Callable[[Path], Callable[[], StorageProvider]]"


def sqlite_in(folder: Path) -> Callable[[], StorageProvider]:
    return lambda: SqliteStorage(folder)


def fake_on_a_disk(_: Path) -> Callable[[], StorageProvider]:
    disk = FakeDisk()
    return lambda: FakeStorage(disk)


@pytest.mark.parametrize("place", [sqlite_in, fake_on_a_disk])
@given(history=steps)
@settings(max_examples=60, deadline=None)
async def test_random_histories_read_as_the_model_says(place: Place, history: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        make = place(Path(folder))
        model, left = Model(), list(reversed(history))
        while True:
            async with make() as storage:
                while left and not isinstance(step := left.pop(), Reopen):
                    await _perform(step, storage, model)
                await _compare(storage, model)
                if not left:
                    return


async def _perform(step: Step, storage: StorageProvider, model: Model) -> None:
    if isinstance(step, Transact):
        exact = tuple(RecordCheck(key, model.mod_revision(key) + off) for key, off in step.checks)
        transaction = Transaction(exact, step.operations)
        assert await storage.transact(transaction) == model.transact(transaction)
    elif isinstance(step, Compact):
        model.compacted = max(model.compacted, int(step.share * model.revision))
        await storage.compact(model.compacted)


async def _compare(storage: StorageProvider, model: Model) -> None:
    info = await storage.info()
    assert (info.revision, info.compacted) == (model.revision, model.compacted)
    for revision in range(model.compacted, model.revision + 1):
        state = model.states[revision]
        page = await storage.range(b"", None, revision=revision)
        assert page.records == tuple(state[key] for key in sorted(state))
        for key in KEYS:
            assert await storage.get(key, revision=revision) == state.get(key)
        changes = await storage.changes(b"a", b"b", after=revision, limit=1000)
        expected = [change for change in model.changes if change.revision > revision and b"a" <= change.key < b"b"]
        assert list(changes.changes) == expected
        assert changes.through == model.revision
    newest = model.states[-1]
    assert (await storage.range(b"", None)).records == tuple(newest[key] for key in sorted(newest))
    expiring = [record.expires_at for record in newest.values() if record.expires_at is not None]
    assert [record.expires_at for record in await storage.expiring(limit=50)] == sorted(expiring)
