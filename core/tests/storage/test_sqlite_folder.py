"""The folder: its mode, its lock, and files that are not ours or not of this version."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from nanocloud.errors import CorruptError, LockedError, ProviderError
from nanocloud.providers.storage import RecordPut, Transaction
from nanocloud.storage import SqliteStorage, _schema

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = """
import sys, pathlib, trio
from nanocloud.storage import SqliteStorage

async def hold(folder):
    async with SqliteStorage(folder):
        print("open", flush=True)
        await trio.sleep_forever()

trio.run(hold, pathlib.Path(sys.argv[1]))
"""


def test_building_a_storage_touches_nothing(tmp_path: Path) -> None:
    assert SqliteStorage(tmp_path / "keyspace").name == "sqlite"
    assert list(tmp_path.iterdir()) == []


async def test_folder_and_files_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "keyspace"
    folder.mkdir(parents=True, mode=0o755)
    old = os.umask(0)
    try:
        async with SqliteStorage(folder) as storage:
            await storage.transact(Transaction((), (RecordPut(b"a", b"1"),)))
            modes = {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}
    finally:
        os.umask(old)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert modes == dict.fromkeys(["lock", "keyspace.db", "keyspace.db-wal", "keyspace.db-shm"], 0o600)
    assert {file.name for file in folder.iterdir()} == {"lock", "keyspace.db"}


def test_every_commit_is_synced(tmp_path: Path) -> None:
    # No test can cut the power, so this holds what SQLite's promise depends on.
    connection = _schema.open_writer(tmp_path / "keyspace.db", max_size_bytes=1 << 30)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    connection.close()


async def test_a_second_opener_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    async with SqliteStorage(tmp_path):
        with pytest.raises(LockedError) as error:
            async with SqliteStorage(tmp_path):
                pass
        assert str(tmp_path) in str(error.value)
        assert f"process {os.getpid()}" in str(error.value)
    async with SqliteStorage(tmp_path):
        pass


async def test_another_server_is_refused_until_it_is_dead(tmp_path: Path) -> None:
    holder = await trio.lowlevel.open_process([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert (await holder.stdout.receive_some()).startswith(b"open")
        with pytest.raises(LockedError, match=f"process {holder.pid}"):
            async with SqliteStorage(tmp_path):
                pass
    finally:
        holder.kill()
        await holder.wait()
    async with SqliteStorage(tmp_path) as storage:
        assert (await storage.info()).revision == 0


async def test_a_child_process_does_not_inherit_the_lock(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "input()"]
    async with SqliteStorage(tmp_path):
        child = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, close_fds=False)
    try:
        async with SqliteStorage(tmp_path):
            pass
    finally:
        child.kill()
        await child.wait()


async def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    async with SqliteStorage(tmp_path):
        pass
    connection = sqlite3.connect(tmp_path / "keyspace.db")
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(ProviderError, match="format 2; this Nanocloud knows format 1"):
        async with SqliteStorage(tmp_path):
            pass


async def test_a_foreign_database_is_left_alone(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "keyspace.db")
    connection.execute("CREATE TABLE photos (name TEXT)")
    connection.close()
    before = (tmp_path / "keyspace.db").read_bytes()
    with pytest.raises(CorruptError, match="no keyspace"):
        async with SqliteStorage(tmp_path):
            pass
    assert (tmp_path / "keyspace.db").read_bytes() == before


async def test_garbage_is_reported_as_damage(tmp_path: Path) -> None:
    (tmp_path / "keyspace.db").write_bytes(b"no database at all, but long enough for a header" * 100)
    with pytest.raises(CorruptError, match="damaged"):
        async with SqliteStorage(tmp_path):
            pass


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ProviderError, match="file/keyspace"):
        async with SqliteStorage(tmp_path / "file" / "keyspace"):
            pass


async def test_a_first_start_that_was_killed_is_begun_again(tmp_path: Path) -> None:
    # What is left when the process dies between making the file and making the tables.
    connection = sqlite3.connect(tmp_path / "keyspace.db")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    async with SqliteStorage(tmp_path) as storage:
        assert (await storage.info()).revision == 0
