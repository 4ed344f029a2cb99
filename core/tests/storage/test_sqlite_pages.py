"""What of the SQLite storage is its own: sizes, pages, and what compaction leaves in the file.

The contract is held by ``test_sqlite_conforms.py``.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from nanocloud.providers.storage import (
    Committed,
    RecordDelete,
    RecordPut,
    Transaction,
)
from nanocloud.storage import SqliteStorage, _apply, _schema

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nanocloud.providers.storage import StorageProvider


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[StorageProvider]:
    async with SqliteStorage(tmp_path / "keyspace") as opened:
        yield opened


async def put(storage: StorageProvider, key: bytes, value: bytes = b"", expires_at: float | None = None) -> int:
    outcome = await storage.transact(Transaction((), (RecordPut(key, value, expires_at),)))
    assert isinstance(outcome, Committed)
    return outcome.revision


async def delete(storage: StorageProvider, key: bytes) -> int:
    outcome = await storage.transact(Transaction((), (RecordDelete(key),)))
    assert isinstance(outcome, Committed)
    return outcome.revision


async def test_a_large_range_comes_whole_from_one_state(storage: StorageProvider) -> None:
    puts = tuple(RecordPut(b"%04d" % number, b"x" * 100) for number in range(500))
    await storage.transact(Transaction((), puts))
    assert [record.key for record in (await storage.range(b"", None)).records] == [put.key for put in puts]
    page = await storage.range(b"0100", None, limit=200)
    assert (len(page.records), page.more) == (200, True)
    await storage.transact(Transaction((), tuple(RecordDelete(put.key) for put in puts[:499])))
    assert len((await storage.range(b"", None, revision=1)).records) == 500
    assert len((await storage.range(b"", None)).records) == 1


async def test_a_page_of_changes_is_bounded_in_bytes(storage: StorageProvider) -> None:
    for number in range(12):
        await put(storage, b"%02d" % number, b"x" * (1 << 20))
    page = await storage.changes(b"", None, after=0, limit=100)
    assert 4 <= len(page.changes) <= 5
    assert page.through == len(page.changes)


async def test_a_tombstone_that_had_to_stay_goes_with_the_next_compaction(tmp_path: Path) -> None:
    async with SqliteStorage(tmp_path) as storage:
        await put(storage, b"a")
        await delete(storage, b"a")
        await storage.compact(2)
        await put(storage, b"b")
        await storage.compact(3)
    connection = sqlite3.connect(tmp_path / "keyspace.db")
    assert connection.execute("SELECT key FROM log").fetchall() == [(b"b",)]
    assert connection.execute("SELECT key FROM kv").fetchall() == [(b"b",)]
    connection.close()


async def test_compaction_gives_space_back(storage: StorageProvider) -> None:
    for _ in range(300):
        await put(storage, b"a", b"x" * 4096)
    before = await storage.info()
    await storage.compact(300)
    after = await storage.info()
    assert before.size_bytes > 300 * 4096
    assert after.size_bytes < 30 * 4096


def test_a_sweep_does_not_write_what_it_frees(tmp_path: Path) -> None:
    database = tmp_path / "keyspace.db"
    connection = _schema.open_writer(database, max_size_bytes=1 << 30)
    group = _apply.Group(connection, _apply.Newest(), 0)
    connection.execute("BEGIN IMMEDIATE")
    for _ in range(40):
        group.apply(Transaction((), (RecordPut(b"k", bytes(100 << 10)),)))
    group.write()
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    free = "SELECT freelist_count FROM pragma_freelist_count"
    assert connection.execute(free).fetchone() == (0,)
    connection.execute("BEGIN IMMEDIATE")
    _apply.sweep(connection, 0, 39)
    connection.execute("COMMIT")
    assert connection.execute(free).fetchone()[0] >= 38 * 25  # pages of what 38 others replaced
    assert database.with_name("keyspace.db-wal").stat().st_size < 20 * 4096
    connection.close()
