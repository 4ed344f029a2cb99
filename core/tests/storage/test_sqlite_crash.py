"""A server that is killed while it writes: every revision that it acknowledged is there afterwards."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import trio

from nanocloud.storage import SqliteStorage

if TYPE_CHECKING:
    from pathlib import Path

# Eight tasks write, delete and compact; each acknowledged write becomes one line, written at once.
WRITER = """
import os, pathlib, random, sys, trio
from nanocloud.providers.storage import RecordDelete, RecordPut, Transaction
from nanocloud.storage import SqliteStorage

async def write(storage, random):
    while True:
        number = random.randrange(40)
        names = [f"{number}-{part}".encode() for part in range(random.randint(1, 3))]
        if random.random() < 0.2:
            operations = tuple(RecordDelete(name) for name in names)
        else:
            value = random.randbytes(random.choice([10, 100, 5000]))
            operations = tuple(RecordPut(name, value) for name in names)
        outcome = await storage.transact(Transaction((), operations))
        if outcome.changed:
            kind = "D" if isinstance(operations[0], RecordDelete) else "P"
            os.write(1, f"{outcome.revision} {kind} {' '.join(map(bytes.decode, names))}\\n".encode())
        if random.random() < 0.01:
            await storage.compact(outcome.revision - 50 if outcome.revision > 50 else 0)

async def main(folder, seed):
    async with SqliteStorage(pathlib.Path(folder)) as storage, trio.open_nursery() as nursery:
        for task in range(8):
            nursery.start_soon(write, storage, random.Random(f"{seed}-{task}"))

trio.run(main, sys.argv[1], sys.argv[2])
"""


def test_no_acknowledged_revision_is_lost_by_sigkill(tmp_path: Path) -> None:
    dice = random.Random(20)
    acknowledged: dict[int, tuple[str, list[bytes]]] = {}
    for round_number in range(6):
        acknowledged |= _write_until_killed(tmp_path, str(round_number), lines=dice.randrange(1, 600))
        trio.run(_check, tmp_path, acknowledged)


def _write_until_killed(folder: Path, seed: str, *, lines: int) -> dict[int, tuple[str, list[bytes]]]:
    command = [sys.executable, "-c", WRITER, str(folder), seed]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        try:
            output = b"".join(writer.stdout.readline() for _ in range(lines))
        finally:
            writer.send_signal(signal.SIGKILL)
        output += writer.stdout.read()
    acknowledged: dict[int, tuple[str, list[bytes]]] = {}
    for line in output.splitlines():
        revision, kind, *names = line.split()
        assert int(revision) not in acknowledged
        acknowledged[int(revision)] = (kind.decode(), names)
    assert len(acknowledged) >= lines
    return acknowledged


async def _check(folder: Path, acknowledged: dict[int, tuple[str, list[bytes]]]) -> None:
    async with SqliteStorage(folder) as storage:
        info = await storage.info()
        assert info.revision >= max(acknowledged)
        changes = (await storage.changes(b"", None, after=info.compacted, limit=1_000_000)).changes
        stored: dict[int, list[tuple[bytes, bool]]] = {}
        for change in changes:
            stored.setdefault(change.revision, []).append((change.key, change.record is None))
        assert sorted(stored) == list(range(info.compacted + 1, info.revision + 1))
        for revision in stored.keys() & acknowledged.keys():
            kind, names = acknowledged[revision]
            written = [name for name, deleted in stored[revision] if deleted == (kind == "D")]
            # A delete skips the keys that were not there.
            assert written == names if kind == "P" else set(written) <= set(names)
        # The present is the compacted state with the changes on top.
        state = {record.key: record for record in (await storage.range(b"", None, revision=info.compacted)).records}
        for change in changes:
            state.pop(change.key, None)
            if change.record is not None:
                state[change.key] = change.record
        assert (await storage.range(b"", None)).records == tuple(state[key] for key in sorted(state))
        newest = {name: revision for revision, (_, names) in sorted(acknowledged.items()) for name in names}
        for name, revision in newest.items():
            record = await storage.get(name)
            assert record is None or record.mod_revision >= revision or acknowledged[revision][0] == "D"
    connection = sqlite3.connect(folder / "keyspace.db")
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("SELECT count(*) FROM kv LEFT JOIN log USING (id) WHERE log.id IS NULL").fetchone() == (
        0,
    )
    connection.close()
