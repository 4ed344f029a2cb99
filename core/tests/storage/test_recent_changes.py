"""The last changes in memory: the same pages as from the disk, within bounds."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from nanocloud.errors import CompactedError
from nanocloud.providers.storage import Record, RecordChange, RecordDelete, RecordPut, Transaction
from nanocloud.storage import SqliteStorage
from nanocloud.storage._recent import RecentChanges


def put(*keys: bytes, size_bytes: int = 1) -> Transaction:
    return Transaction((), tuple(RecordPut(key, bytes(size_bytes), 5.0) for key in keys))


async def test_memory_and_disk_tell_the_same_history(tmp_path: Path) -> None:
    async with SqliteStorage(tmp_path) as storage:
        await storage.transact(put(b"a", b"b"))
        await storage.transact(put(b"a"))
        await storage.transact(Transaction((), (RecordDelete(b"a"), RecordPut(b"c", b""), RecordDelete(b"none"))))
        await storage.transact(Transaction((), (RecordDelete(b"none"),)))  # changes nothing
        await storage.transact(put(b"a"))
        questions = [
            (start, end, after, limit)
            for start, end in ((b"", None), (b"a", b"b"), (b"b", None))
            for after in range(5)
            for limit in (1, 2, 100)
        ]

        async def history(start: bytes, end: bytes | None, after: int, limit: int) -> list[RecordChange]:
            found: list[RecordChange] = []
            while after < 4:
                page = await storage.changes(start, end, after=after, limit=limit)
                assert page.through > after
                assert page.changes or page.through == 4
                found, after = [*found, *page.changes], page.through
            return found

        from_memory = [await history(*question) for question in questions]
        storage._recent = RecentChanges(99)  # knows nothing: everything comes from the disk
        assert [await history(*question) for question in questions] == from_memory


async def test_what_is_compacted_is_forgotten_here_too(tmp_path: Path) -> None:
    async with SqliteStorage(tmp_path) as storage:
        for _ in range(5):
            await storage.transact(put(b"a"))
        await storage.compact(3)
        with pytest.raises(CompactedError):
            await storage.changes(b"", None, after=2, limit=10)
        page = await storage.changes(b"", None, after=3, limit=10)
        assert [(change.revision, change.previous and change.previous.mod_revision) for change in page.changes] == [
            (4, 3),
            (5, 4),
        ]


async def test_writers_side_by_side_leave_one_history(tmp_path: Path) -> None:
    async with SqliteStorage(tmp_path) as storage:
        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(storage.transact, put(b"%d" % (number % 7)))
        page = await storage.changes(b"", None, after=0, limit=1000)
        assert [change.revision for change in page.changes] == list(range(1, 201))
        storage._recent = RecentChanges(999)
        assert await storage.changes(b"", None, after=0, limit=1000) == page


def change(revision: int, size_bytes: int = 0) -> RecordChange:
    return RecordChange(b"k", revision, Record(b"k", bytes(size_bytes), 1, revision, 1, None), None)


def test_the_oldest_go_first_in_count_and_in_bytes() -> None:
    recent = RecentChanges(10)
    for revision in range(11, 2011):
        recent.add([change(revision)])
    assert recent.page(b"", None, 10, 1) is None
    assert recent.page(b"", None, 2011, 1) is None  # not reported yet
    page = recent.page(b"", None, recent.floor, 5000)
    assert page is not None
    assert 1000 < len(page.changes) < 1100
    assert page.changes[0].revision == recent.floor + 1
    recent.add([change(2011, 3 << 20)])
    assert recent.floor == recent.revision == 2011
    assert recent.page(b"", None, 2011, 1) is not None
