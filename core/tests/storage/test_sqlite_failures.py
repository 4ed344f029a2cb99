"""A disk that is full or broken: callers get one clear error, and what is stored stays whole."""

from __future__ import annotations

import resource
import shutil
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from nanocloud.errors import UnavailableError
from nanocloud.providers.storage import Committed, RecordPut, Transaction
from nanocloud.storage import SqliteStorage, _schema, _writer, sqlite

if TYPE_CHECKING:
    from pathlib import Path


def one_put(key: bytes, size_bytes: int = 10) -> Transaction:
    return Transaction((), (RecordPut(key, b"x" * size_bytes),))


async def test_a_full_store_refuses_writes_until_something_is_compacted(tmp_path: Path) -> None:
    async with SqliteStorage(tmp_path, max_size_bytes=2 << 20) as storage:

        async def fill() -> None:
            while True:
                await storage.transact(one_put(b"a", 100_000))

        with pytest.raises(UnavailableError, match="cannot grow") as error:
            await fill()
        assert "free space" in error.value.hint
        revision = (await storage.info()).revision
        assert 10 < revision < 21
        await storage.compact(revision)
        assert await storage.transact(one_put(b"a", 100_000)) == Committed(revision + 1, 1, (await storage.get(b"a"),))


async def test_a_disk_that_refuses_a_write_fails_the_caller_only(tmp_path: Path) -> None:
    async with SqliteStorage(tmp_path) as storage:
        await storage.transact(one_put(b"before"))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            with pytest.raises(UnavailableError, match=r"keyspace\.db"):
                await storage.transact(one_put(b"large", 1_000_000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert await storage.get(b"large") is None
        await storage.transact(one_put(b"after"))
    async with SqliteStorage(tmp_path) as storage:
        records = (await storage.range(b"", None)).records
        assert [(record.key, record.mod_revision) for record in records] == [(b"after", 2), (b"before", 1)]


class BrokenDisk:
    """A connection whose next commit reports that the sync failed."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection, self.armed = connection, False

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        if self.armed and sql == "COMMIT":
            self.armed = False
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
            raise error
        return self.connection.execute(sql, *args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)


async def test_after_a_failed_sync_nothing_is_acknowledged_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disks: list[BrokenDisk] = []

    def open_on_broken_disk(database: Path, *, max_size_bytes: int) -> BrokenDisk:
        disks.append(BrokenDisk(_schema.open_writer(database, max_size_bytes=max_size_bytes)))
        return disks[0]

    monkeypatch.setattr(sqlite, "open_writer", open_on_broken_disk)
    failures: list[str] = []

    async def expect_failure(storage: SqliteStorage, number: int) -> None:
        with pytest.raises(UnavailableError) as error:
            await storage.transact(one_put(b"%d" % number))
        failures.append(str(error.value))

    async with SqliteStorage(tmp_path) as storage:
        await storage.transact(one_put(b"good"))
        disks[0].armed = True
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(expect_failure, storage, number)
        await expect_failure(storage, 10)
        assert all("SQLITE_IOERR_FSYNC" in failure for failure in failures)
        assert await storage.get(b"good") is not None
    monkeypatch.undo()
    async with SqliteStorage(tmp_path) as storage:
        assert (await storage.info()).revision == 1


async def test_closing_finishes_what_was_submitted_and_refuses_the_rest(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path)
    async with trio.open_nursery() as nursery, storage:
        for number in range(100):
            nursery.start_soon(storage.transact, one_put(b"%d" % number))
        await trio.testing.wait_all_tasks_blocked(0)
    with pytest.raises(UnavailableError, match="closed"):
        await storage.transact(one_put(b"late"))
    async with storage:
        assert (await storage.info()).revision == 100


async def test_an_interrupted_compaction_is_finished_by_the_next_start(tmp_path: Path) -> None:
    async def compact() -> None:
        with pytest.raises(UnavailableError, match="closed"):
            await storage.compact(2000)

    async with trio.open_nursery() as nursery, SqliteStorage(tmp_path) as storage:
        async with trio.open_nursery() as writers:
            for _ in range(2000):
                writers.start_soon(storage.transact, one_put(b"a", 1000))
        nursery.start_soon(compact)
        await trio.testing.wait_all_tasks_blocked(0)
    async with SqliteStorage(tmp_path) as storage:
        info = await storage.info()
        assert info.compacted == 2000
        assert info.size_bytes > 1_000_000
        await storage.compact(2000)
        assert (await storage.info()).size_bytes < 100_000


async def test_a_reader_that_gives_up_while_a_commit_comes_in_leaves_quietly(tmp_path: Path) -> None:
    async with SqliteStorage(tmp_path / "keyspace") as storage:
        done = await storage.transact(Transaction((), (RecordPut(b"a", b"1"),)))
        assert isinstance(done, Committed)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(storage.wait_beyond, done.revision)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
                storage._committed(done.revision + 1, [()])  # before the reader runs and sees that it was cancelled
        assert scope.cancelled_caught


def test_the_journal_is_reserved_step_by_step_and_keeps_what_is_in_it(tmp_path: Path) -> None:
    database, journal = tmp_path / "keyspace.db", tmp_path / "keyspace.db-wal"
    connection = _schema.open_writer(database, max_size_bytes=1 << 30)
    steps = 1
    while not _schema.reserve_journal(database):
        steps += 1
    assert steps == 8
    assert journal.stat().st_size == 16 << 20
    connection.execute("INSERT INTO meta VALUES ('a', 1)")
    other = _schema.open_reader(database)
    assert other.execute("SELECT value FROM meta WHERE name = 'a'").fetchone() == (1,)
    (tmp_path / "copy").mkdir()  # as after a crash: the journal has to be read back, zeros and all
    for file in (database, journal):
        shutil.copy(file, tmp_path / "copy")
    copied = _schema.open_writer(tmp_path / "copy" / "keyspace.db", max_size_bytes=1 << 30)
    assert copied.execute("SELECT value FROM meta WHERE name = 'a'").fetchone() == (1,)
    assert copied.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    for opened in (other, connection, copied):
        opened.close()
    assert not journal.exists()


def test_a_journal_that_finds_no_room_does_without(tmp_path: Path) -> None:
    database, journal = tmp_path / "keyspace.db", tmp_path / "keyspace.db-wal"
    connection = _schema.open_writer(database, max_size_bytes=1 << 30)
    size_bytes = journal.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        while not _schema.reserve_journal(database):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert size_bytes < journal.stat().st_size <= 1 << 20
    connection.execute("INSERT INTO meta VALUES ('a', 1)")
    connection.close()


async def test_an_idle_store_reserves_its_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()

    def reserve(database: Path) -> bool:
        if is_last := _schema.reserve_journal(database):
            done.set()
        return is_last

    monkeypatch.setattr(_writer, "reserve_journal", reserve)
    async with SqliteStorage(tmp_path) as storage:
        await storage.transact(one_put(b"a"))
        assert await trio.to_thread.run_sync(done.wait, 60)
        assert (tmp_path / "keyspace.db-wal").stat().st_size == 16 << 20
