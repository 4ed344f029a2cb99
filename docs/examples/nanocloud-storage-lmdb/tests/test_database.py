"""What the file goes through: growth, a full disk, a failing disk, damage, other formats, other eyes."""

from __future__ import annotations

import errno
import os
import resource
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import lmdb
import pytest
import trio
from nanocloud.errors import CorruptError, ProviderError, UnavailableError
from stores import history, put, puts

from nanocloud_storage_lmdb.change import Change
from nanocloud_storage_lmdb.database import Database
from nanocloud_storage_lmdb.rows import packed
from nanocloud_storage_lmdb.storage import LmdbStorage

MIB = 1 << 20


@contextmanager
def files_up_to(size_bytes: int) -> Iterator[None]:
    """No file of this process grows beyond it: what a full disk is to a writer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_the_map_grows_while_readers_read(tmp_path: Path) -> None:
    written, seen = trio.Event(), 0
    async with LmdbStorage(tmp_path / "store") as storage:

        async def read() -> None:
            nonlocal seen
            while not written.is_set():
                page = await storage.range(b"", None)
                assert [record.value[:1] for record in page.records] == [b"x"] * len(page.records)
                seen = len(page.records)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(read)
            for number in range(40):
                await put(storage, b"%02d" % number, b"x" * MIB)
            written.set()
        assert seen > 0
        assert (await storage.info()).size_bytes > 40 * MIB
    async with LmdbStorage(tmp_path / "store") as storage:
        assert len(await history(storage)) == 40


async def test_a_full_disk_is_told_and_writes_go_on_when_there_is_room(tmp_path: Path) -> None:
    file = tmp_path / "store" / "store.mdb"
    async with LmdbStorage(tmp_path / "store") as storage:
        await put(storage, b"before", b"1")
        with files_up_to(file.stat().st_size + 16384):
            with pytest.raises(UnavailableError, match="there is no room for") as caught:
                await put(storage, b"large", b"x" * MIB)
            assert caught.value.hint
            record = await storage.get(b"before")
            assert record is not None
            assert await storage.get(b"large") is None
            assert (await storage.info()).revision == 1
        assert await put(storage, b"large", b"x" * MIB) == 2
    async with LmdbStorage(tmp_path / "store") as storage:
        assert [change.key for change in await history(storage)] == [b"before", b"large"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.root
async def test_a_disk_that_others_filled(small_disk: Path) -> None:
    others = small_disk / "others"
    async with LmdbStorage(small_disk / "store") as storage:
        for number in range(2):
            await put(storage, b"%d" % number, b"x" * (MIB // 2))
        with pytest.raises(OSError, match="No space left"):
            others.write_bytes(b"x" * 4 * MIB)
        for _ in range(3):
            with pytest.raises(UnavailableError, match="there is no room for"):
                await put(storage, b"more", b"x" * MIB)
        assert [record.key for record in (await storage.range(b"", None)).records] == [b"0", b"1"]
        others.unlink()
        assert await put(storage, b"more", b"x" * MIB) == 3
    async with LmdbStorage(small_disk / "store") as storage:
        assert len(await history(storage)) == 3


class FailingDisk:
    """LMDB's environment, on a disk whose syncs have begun to fail."""

    def __init__(self, env: lmdb.Environment) -> None:
        self.env, self.asked = env, 0

    def begin(self, *, write: bool = False) -> lmdb.Transaction[bytes]:
        if write:
            self.asked += 1
            error = lmdb.Error("mdb_txn_commit: Input/output error")
            error.code = errno.EIO  # type: ignore[misc]  # as the C code does
            raise error
        return self.env.begin()


def test_after_a_failed_sync_nothing_is_written_any_more(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "store.mdb")
    database.write(partial(Change.transact, transaction=puts((b"a", b"1"))))
    disk = database._env = FailingDisk(database._env)  # type: ignore[assignment]
    for _ in range(2):
        with pytest.raises(UnavailableError, match=r"store\.mdb failed: mdb_txn_commit: Input/output error"):
            database.write(partial(Change.transact, transaction=puts((b"a", b"2"))))
    assert disk.asked == 1, "the kernel may report the next sync as good"
    with database.view() as view:
        record = view.get(b"a", None)
    assert record is not None
    assert record.value == b"1"
    disk.env.close()


def test_a_view_stays_in_its_own_state(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "store.mdb")
    for value in (b"1", b"2"):
        database.write(partial(Change.transact, transaction=puts((b"a", value))))
    with database.view() as view:
        database.write(partial(Change.transact, transaction=puts((b"a", b"3"), (b"b", b""))))
        database.write(partial(Change.mark_compacted, revision=3))
        assert not database.write(partial(Change.sweep, limit=100))
        assert [record.value for record in view.range(b"", None, None, None).records] == [b"2"]
        record = view.get(b"a", 1)
        assert record is not None
        assert record.value == b"1"
    database.close()


# ---- damage


async def made(folder: Path) -> Path:
    async with LmdbStorage(folder) as storage:
        for number in range(50):
            await put(storage, b"key%02d" % number, b"value%02d" % number * 100)
    return folder / "store.mdb"


async def test_a_damaged_value_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    file = await made(tmp_path / "store")
    content = bytearray(file.read_bytes())
    while (at := content.find(b"value07value07")) >= 0:  # LMDB may have copies that nothing refers to
        content[at : at + 4] = b"evil"
    file.write_bytes(content)
    async with LmdbStorage(tmp_path / "store") as storage:
        with pytest.raises(CorruptError, match="key07.* does not have its checksum"):
            await storage.get(b"key07")
        with pytest.raises(CorruptError):
            await put(storage, b"key07", b"over it")
        assert await storage.get(b"key08") is not None
        assert await put(storage, b"key08", b"goes on") == 51


async def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    # Mapped as it is, it would end the process by SIGBUS.
    file = await made(tmp_path / "store")
    whole = file.read_bytes()
    for length in (*range(0, len(whole), 8192), len(whole) - 5000):
        file.write_bytes(whole[:length])
        with pytest.raises(CorruptError, match="is damaged"):
            async with LmdbStorage(tmp_path / "store"):
                pass
        assert file.stat().st_size == length, "it was touched"


async def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    file = await made(tmp_path / "store")
    file.write_bytes(b"no store" * 2048)
    with pytest.raises(CorruptError, match="is damaged") as caught:
        async with LmdbStorage(tmp_path / "store"):
            pass
    assert caught.value.hint == "restore it from a backup"


async def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    file = await made(tmp_path / "store")
    with lmdb.open(str(file), subdir=False, max_dbs=4) as env, env.begin(write=True) as txn:
        txn.put(b"format", packed(2), db=env.open_db(b"meta", txn=txn))
    with pytest.raises(ProviderError, match="has format 2; .* reads 1") as caught:
        async with LmdbStorage(tmp_path / "store"):
            pass
    assert "install" in caught.value.hint


async def test_what_a_kill_left_of_making_the_file_is_no_store(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / ".store.mdb.new").write_bytes(b"half of it")
    async with LmdbStorage(folder) as storage:
        assert await put(storage, b"a") == 1
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "store.mdb", "store.mdb-lock"]


async def test_nobody_else_reads_it_and_no_program_inherits_it(tmp_path: Path) -> None:
    folder, before = tmp_path / "store", set(os.listdir("/proc/self/fd"))
    folder.mkdir(mode=0o755)
    async with LmdbStorage(folder) as storage:
        await put(storage, b"a")
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        opened = [int(name) for name in os.listdir("/proc/self/fd") if Path(f"/proc/self/fd/{name}").exists()]
        ours = [number for number in opened if os.readlink(f"/proc/self/fd/{number}").startswith(str(folder))]
        assert len(ours) >= 3
        assert not any(os.get_inheritable(number) for number in ours)
    assert set(os.listdir("/proc/self/fd")) <= before
