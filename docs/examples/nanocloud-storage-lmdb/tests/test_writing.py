"""Group commit, compaction in steps, and kills in the middle of both."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import lmdb
import lmdb.verify
import pytest
import trio
from nanocloud.providers.storage import Record, RecordPut
from stores import commit, history, put

from nanocloud_storage_lmdb.storage import LmdbStorage

KILLS = 12


def transactions_of(file: Path) -> int:
    """How many LMDB has committed."""
    with lmdb.open(str(file), subdir=False, readonly=True, lock=False) as env:
        return env.info()["last_txnid"]


async def test_writers_share_commits(tmp_path: Path) -> None:
    async with LmdbStorage(tmp_path / "store") as storage:
        async with trio.open_nursery() as nursery:
            for number in range(400):
                nursery.start_soon(put, storage, b"%d" % number)
        assert (await storage.info()).revision == 400
    assert transactions_of(tmp_path / "store" / "store.mdb") < 100


async def test_transactions_come_between_the_steps_of_a_compaction(tmp_path: Path) -> None:
    order: list[str] = []
    async with LmdbStorage(tmp_path / "store") as storage:
        for number in range(8):
            await commit(storage, *(RecordPut(b"%03d" % key, b"%d" % number) for key in range(500)))

        async def compact() -> None:
            await storage.compact(8)
            order.append("compacted")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(compact)
            for number in range(4):
                await put(storage, b"key", b"%d" % number)
                order.append("written")
        assert order[:2] == ["written", "written"]
        assert (await storage.info()).compacted == 8
        assert {record.version for record in (await storage.range(b"0", b"1", revision=8)).records} == {8}


async def test_compacted_space_is_used_again(tmp_path: Path) -> None:
    file, sizes = tmp_path / "store" / "store.mdb", list[int]()
    async with LmdbStorage(tmp_path / "store") as storage:
        for _ in range(6):
            for number in range(100):
                await put(storage, b"%d" % (number % 10), b"x" * 20_000)
            await storage.compact((await storage.info()).revision)
            sizes.append(file.stat().st_size)
        assert (await storage.info()).size_bytes < 10 * 3 * 20_000
    assert sizes[-1] < 2 * sizes[0]


async def test_a_cancelled_compaction_is_finished_by_the_next(tmp_path: Path) -> None:
    async with LmdbStorage(tmp_path / "store") as storage:
        for number in range(10):
            await commit(storage, *(RecordPut(b"%03d" % key, b"%d" % number) for key in range(500)))
        whole = (await storage.info()).size_bytes
        async with trio.open_nursery() as nursery:
            nursery.start_soon(storage.compact, 10)
            while (await storage.info()).compacted < 10:
                await storage.wait_beyond(-1)
            nursery.cancel_scope.cancel()
        await storage.compact(5)  # compacted long since; what is left of that goes now
        assert (await storage.info()).size_bytes < whole / 4
        assert len((await storage.range(b"", None, revision=10)).records) == 500


WRITE_FOR_EVER = """
import random, sys
from pathlib import Path
import trio
from nanocloud.providers.storage import RecordDelete, RecordPut
from nanocloud_storage_lmdb.storage import LmdbStorage
from stores import commit

async def main(folder, seed):
    async with LmdbStorage(Path(folder)) as storage:
        start = (await storage.info()).revision

        async def write(task):
            dice = random.Random(f"{seed} {task}")
            while True:
                keys = [b"k" * dice.choice((5, 800)) + b"%d-%d" % (n, task) for n in dice.sample(range(20), 3)]
                made = [RecordPut(key, dice.randbytes(dice.choice((9, 9000))), 1e9 + task) for key in keys[1:]]
                revision = await commit(storage, RecordDelete(keys[0]), *made)
                print(revision, *(key.decode() for key in keys[1:]), flush=True)
                if task == 0 and dice.random() < 0.2:
                    await storage.compact(max(0, revision - 60))

        async with trio.open_nursery() as nursery:
            for task in range(6):
                nursery.start_soon(write, task)

trio.run(main, *sys.argv[1:])
"""


def killed_while_writing(folder: Path, seed: int, *, after: int) -> dict[int, set[bytes]]:
    """What another process had acknowledged when it was killed: the keys that each revision put."""
    command = [sys.executable, "-c", WRITE_FOR_EVER, str(folder), str(seed)]
    environment = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(after)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines(keepends=True)  # what was on its way
    told = [line.split() for line in lines if line.endswith(b"\n")]
    assert len(told) >= after
    return {int(revision): set(keys) for revision, *keys in told}


@pytest.mark.parametrize("seed", range(3))
async def test_what_was_acknowledged_survives_kills_at_any_moment(tmp_path: Path, seed: int) -> None:
    folder, dice, last = tmp_path / "store", random.Random(seed), 0
    for kill in range(KILLS // 3):
        told = killed_while_writing(folder, 10 * seed + kill, after=dice.randrange(1, 400))
        assert lmdb.verify.verify(folder / "store.mdb") == []  # type: ignore[no-untyped-call]
        async with LmdbStorage(folder) as storage:
            info = await storage.info()
            assert last < min(told), "a revision was given twice"
            assert max(told) <= info.revision
            changes = await history(storage, after=info.compacted)
            written: dict[int, set[bytes]] = {}
            for change in changes:
                written.setdefault(change.revision, set()).update([change.key] if change.record else [])
            assert {at: keys for at, keys in told.items() if at > info.compacted} == {
                at: written[at] for at in told if at > info.compacted
            }
            # The present is the last state that is kept, and what changed since then.
            state = {r.key: r for r in (await storage.range(b"", None, revision=info.compacted)).records}
            for change in changes:
                assert change.previous == state.get(change.key)
                replay(state, change.key, change.record)
            assert (await storage.range(b"", None)).records == tuple(state[key] for key in sorted(state))
            expiring = await storage.expiring(limit=1000)
            assert sorted(record.key for record in expiring) == sorted(state)
            last = info.revision


def replay(state: dict[bytes, Record], key: bytes, record: Record | None) -> None:
    state.pop(key, None)
    if record is not None:
        state[key] = record
