"""Reads from memory: never other than the disk has it, and within bounds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from nanocloud.providers.storage import Committed, Record, RecordDelete, RecordPut, Transaction
from nanocloud.storage import SqliteStorage
from nanocloud.storage._cache import RecordCache


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[SqliteStorage]:
    storage = SqliteStorage(tmp_path)
    async with storage.lifespan():
        yield storage


def put(value: bytes, key: bytes = b"k") -> Transaction:
    return Transaction((), (RecordPut(key, value),))


async def value(storage: SqliteStorage, key: bytes = b"k") -> bytes | None:
    record = await storage.get(key)
    return None if record is None else record.value


async def test_a_read_after_an_acknowledged_write_sees_it(storage: SqliteStorage) -> None:
    for number in range(20):
        await storage.transact(put(b"%d" % number))
        assert [await value(storage) for _ in range(2)] == [b"%d" % number] * 2
    await storage.transact(Transaction((), (RecordDelete(b"k"),)))
    assert await value(storage) is None


async def test_what_was_written_is_read_without_the_disk(storage: SqliteStorage) -> None:
    await storage.transact(put(b"new"))
    storage._reader.close()
    assert await value(storage) == b"new"


async def test_readers_beside_writers_never_go_back(storage: SqliteStorage) -> None:
    acknowledged = dict.fromkeys((b"a", b"b", b"c"), 0)

    async def write(key: bytes) -> None:
        for number in range(1, 60):
            outcome = await storage.transact(put(b"%d" % number, key))
            assert isinstance(outcome, Committed)
            acknowledged[key] = number

    async def read(key: bytes) -> None:
        seen = 0
        while acknowledged[key] < 59:
            least = acknowledged[key]
            found = int(await value(storage, key) or 0)
            assert found >= max(seen, least)
            seen = found
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for key in acknowledged:
            nursery.start_soon(write, key)
            nursery.start_soon(read, key)


async def test_a_write_that_nobody_waits_for_any_more_counts(storage: SqliteStorage) -> None:
    await storage.transact(put(b"old"))
    assert await value(storage) == b"old"
    with trio.CancelScope() as scope:
        scope.cancel()
        await storage.transact(put(b"new"))
    await storage.transact(put(b"other", b"other"))  # whatever was under way is through
    # Whether it happened is open; the memory and the disk must agree on it.
    assert await value(storage) == (await storage.range(b"k", b"l")).records[0].value
    await storage.transact(put(b"last"))
    assert await value(storage) == b"last"


def record(key: bytes, size_bytes: int = 0) -> Record:
    return Record(key, bytes(size_bytes), 1, 1, 1, None)


def test_a_record_that_is_being_written_is_not_given_out() -> None:
    cache = RecordCache()
    cache.add(record(b"k"))
    cache.begin_writing(b"k")
    cache.begin_writing(b"k")
    cache.end_writing(b"k", record(b"k", 1))
    cache.add(record(b"k"))
    assert cache.get(b"k") is None
    cache.end_writing(b"k", record(b"k", 2))
    assert cache.get(b"k") == record(b"k", 2)
    cache.add(record(b"k", 1))  # read from the disk before that
    assert cache.get(b"k") == record(b"k", 2)


def test_a_write_whose_outcome_is_not_known_leaves_nothing() -> None:
    cache = RecordCache()
    cache.add(record(b"k"))
    cache.begin_writing(b"k")
    cache.end_writing(b"k", None)
    assert cache.get(b"k") is None
    cache.add(record(b"k", 1))
    assert cache.get(b"k") == record(b"k", 1)


def test_what_was_read_last_is_kept_within_bounds() -> None:
    cache = RecordCache()
    cache.add(record(b"huge", 1 << 20))
    assert cache.get(b"huge") is None
    for number in range(1000):
        cache.add(record(b"%d" % number, 60 << 10))
        assert cache.get(b"0") is not None  # read again and again
    kept = sum(cache.get(b"%d" % number) is not None for number in range(1000))
    assert 60 <= kept <= 70
    assert cache.get(b"999") is not None
    for _ in range(1000):
        cache.begin_writing(b"999")
        cache.end_writing(b"999", record(b"999", 50 << 10))
    assert sum(cache.get(b"%d" % number) is not None for number in range(1000)) == kept
