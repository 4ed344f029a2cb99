"""What the storage contract promises, asked of the SQLite storage."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest
import trio

from nanocloud.errors import CompactedError, FutureRevisionError
from nanocloud.providers.storage import (
    Committed,
    Record,
    RecordCheck,
    RecordDelete,
    RecordPut,
    Rejected,
    StorageInfo,
    Transaction,
)
from nanocloud.storage import SqliteStorage

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


async def test_a_new_storage_is_at_revision_zero(storage: StorageProvider) -> None:
    info = await storage.info()
    assert (info.revision, info.compacted) == (0, 0)
    assert await storage.get(b"a") is None
    assert (await storage.range(b"", None)).records == ()
    assert (await storage.changes(b"", None, after=0, limit=10)).through == 0


async def test_a_transaction_is_one_revision_for_all_its_keys(storage: StorageProvider) -> None:
    outcome = await storage.transact(Transaction((), (RecordPut(b"a", b"1"), RecordPut(b"b", b"2", 99.5))))
    assert outcome == Committed(1, 2, (Record(b"a", b"1", 1, 1, 1, None), Record(b"b", b"2", 1, 1, 1, 99.5)))
    assert (await storage.range(b"", None)).records == outcome.records
    assert (await storage.info()).revision == 1


async def test_versions_count_writes_and_start_again_after_a_delete(storage: StorageProvider) -> None:
    await put(storage, b"a", b"1")
    await put(storage, b"a", b"2")
    assert await storage.get(b"a") == Record(b"a", b"2", 1, 2, 2, None)
    await delete(storage, b"a")
    assert await storage.get(b"a") is None
    await put(storage, b"a", b"3")
    assert await storage.get(b"a") == Record(b"a", b"3", 4, 4, 1, None)


async def test_a_transaction_that_changes_nothing_takes_no_revision(storage: StorageProvider) -> None:
    await put(storage, b"a")
    assert await storage.transact(Transaction((), (RecordDelete(b"x"),))) == Committed(1, 0, (None,))
    assert await storage.transact(Transaction((RecordCheck(b"a", 1),), ())) == Committed(1, 0, ())
    assert await put(storage, b"b") == 2


async def test_a_failed_check_names_the_first_key_and_changes_nothing(storage: StorageProvider) -> None:
    await put(storage, b"a")
    checks = (RecordCheck(b"a", 1), RecordCheck(b"b", 7), RecordCheck(b"a", 9))
    assert await storage.transact(Transaction(checks, (RecordPut(b"c", b""),))) == Rejected(b"b", 7, 0)
    await delete(storage, b"a")
    assert await storage.transact(Transaction((RecordCheck(b"a", 1),), ())) == Rejected(b"a", 1, 0)
    assert await storage.get(b"c") is None
    assert (await storage.info()).revision == 2


async def test_transactions_of_one_group_are_checked_one_after_the_other(storage: StorageProvider) -> None:
    await put(storage, b"n", b"")
    outcomes: list[Committed | Rejected] = []

    async def contend(number: int) -> None:
        claim = Transaction((RecordCheck(b"n", 1),), (RecordPut(b"n", b"%d" % number),))
        outcomes.append(await storage.transact(claim))
        # Not related to the claim, in the same groups: must all succeed.
        assert isinstance(await storage.transact(Transaction((), (RecordPut(b"own%d" % number, b""),))), Committed)

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(contend, number)
    won = [outcome for outcome in outcomes if isinstance(outcome, Committed)]
    assert len(won) == 1
    assert {outcome for outcome in outcomes if isinstance(outcome, Rejected)} == {Rejected(b"n", 1, won[0].revision)}
    assert (await storage.info()).revision == 52
    assert len((await storage.range(b"own", b"owo")).records) == 50


async def test_a_range_is_sorted_by_bytes_bounded_and_limited(storage: StorageProvider) -> None:
    for key in (b"b\x00", b"a\xff", b"b", b"\x00", b"a", b"c"):
        await put(storage, key)
    page = await storage.range(b"a", b"c")
    assert [record.key for record in page.records] == [b"a", b"a\xff", b"b", b"b\x00"]
    assert (page.more, page.revision) == (False, 6)
    page = await storage.range(b"a", b"c", limit=3)
    assert [record.key for record in page.records] == [b"a", b"a\xff", b"b"]
    assert page.more
    assert not (await storage.range(b"a", b"c", limit=4)).more


async def test_a_large_range_comes_whole_from_one_state(storage: StorageProvider) -> None:
    puts = tuple(RecordPut(b"%04d" % number, b"x" * 100) for number in range(500))
    await storage.transact(Transaction((), puts))
    assert [record.key for record in (await storage.range(b"", None)).records] == [put.key for put in puts]
    page = await storage.range(b"0100", None, limit=200)
    assert (len(page.records), page.more) == (200, True)
    await storage.transact(Transaction((), tuple(RecordDelete(put.key) for put in puts[:499])))
    assert len((await storage.range(b"", None, revision=1)).records) == 500
    assert len((await storage.range(b"", None)).records) == 1


async def test_the_past_reads_as_it_was(storage: StorageProvider) -> None:
    await put(storage, b"a", b"1")
    await put(storage, b"b", b"1")
    await put(storage, b"a", b"2")
    await delete(storage, b"a")
    await put(storage, b"a", b"3")
    assert await storage.get(b"a", revision=2) == Record(b"a", b"1", 1, 1, 1, None)
    assert await storage.get(b"a", revision=3) == Record(b"a", b"2", 1, 3, 2, None)
    assert await storage.get(b"a", revision=4) is None
    assert [record.value for record in (await storage.range(b"", None, revision=1)).records] == [b"1"]
    page = await storage.range(b"", None, revision=4)
    assert [record.key for record in page.records] == [b"b"]
    assert page.revision == 4


async def test_changes_come_in_order_with_what_was_before(storage: StorageProvider) -> None:
    await put(storage, b"a", b"1")
    await storage.transact(Transaction((), (RecordPut(b"b", b"1"), RecordDelete(b"a"))))
    await put(storage, b"a", b"2")
    page = await storage.changes(b"", None, after=0, limit=100)
    one, two = Record(b"a", b"1", 1, 1, 1, None), Record(b"b", b"1", 2, 2, 1, None)
    assert [(change.key, change.revision, change.record, change.previous) for change in page.changes] == [
        (b"a", 1, one, None),
        (b"b", 2, two, None),
        (b"a", 2, None, one),
        (b"a", 3, Record(b"a", b"2", 3, 3, 1, None), None),
    ]
    assert page.through == 3
    page = await storage.changes(b"b", b"c", after=1, limit=100)
    assert [change.key for change in page.changes] == [b"b"]
    assert page.through == 3


async def test_a_page_of_changes_never_cuts_a_transaction(storage: StorageProvider) -> None:
    for _ in range(4):
        await storage.transact(Transaction((), tuple(RecordPut(b"%d" % number, b"") for number in range(5))))
    after, sizes = 0, []
    while (page := await storage.changes(b"", None, after=after, limit=7)).changes:
        sizes.append(len(page.changes))
        after = page.through
    assert sizes == [10, 10]
    assert after == 4


async def test_a_page_of_changes_is_bounded_in_bytes(storage: StorageProvider) -> None:
    for number in range(12):
        await put(storage, b"%02d" % number, b"x" * (1 << 20))
    page = await storage.changes(b"", None, after=0, limit=100)
    assert 4 <= len(page.changes) <= 5
    assert page.through == len(page.changes)


async def test_what_is_not_reached_yet_is_refused(storage: StorageProvider) -> None:
    await put(storage, b"a")
    with pytest.raises(FutureRevisionError):
        await storage.get(b"a", revision=2)
    with pytest.raises(FutureRevisionError):
        await storage.range(b"", None, revision=2)
    with pytest.raises(FutureRevisionError):
        await storage.changes(b"", None, after=2, limit=1)
    with pytest.raises(FutureRevisionError):
        await storage.compact(2)


async def test_compaction_forgets_the_past_and_keeps_the_present(storage: StorageProvider) -> None:
    await put(storage, b"a", b"1")
    await put(storage, b"gone")
    await put(storage, b"a", b"2")
    await delete(storage, b"gone")
    await put(storage, b"a", b"3")
    await storage.compact(4)
    assert await storage.get(b"a") == Record(b"a", b"3", 1, 5, 3, None)
    assert await storage.get(b"a", revision=4) == Record(b"a", b"2", 1, 3, 2, None)
    assert await storage.get(b"gone", revision=4) is None
    (change,) = (await storage.changes(b"", None, after=4, limit=10)).changes
    assert change.previous == Record(b"a", b"2", 1, 3, 2, None)
    for requested in (0, 3):
        with pytest.raises(CompactedError) as error:
            await storage.changes(b"", None, after=requested, limit=10)
        assert (error.value.requested, error.value.compacted) == (requested, 4)
        with pytest.raises(CompactedError):
            await storage.range(b"", None, revision=requested)
        with pytest.raises(CompactedError):
            await storage.get(b"a", revision=requested)


async def test_compaction_repeats_and_never_goes_back(storage: StorageProvider) -> None:
    for _ in range(5):
        await put(storage, b"a")
    await storage.compact(4)
    await storage.compact(4)
    await storage.compact(2)
    assert (await storage.info()).compacted == 4


async def test_compacting_a_newest_tombstone_loses_no_revision(tmp_path: Path) -> None:
    # The last revision must be known after a restart although nothing of it is left to be read.
    async with SqliteStorage(tmp_path) as storage:
        await put(storage, b"a")
        await delete(storage, b"a")
        await storage.compact(2)
        assert (await storage.info()).revision == 2
    async with SqliteStorage(tmp_path) as storage:
        assert (await storage.info()).revision == 2
        assert await storage.get(b"a") is None
        assert await put(storage, b"a") == 3
        assert await storage.get(b"a") == Record(b"a", b"", 3, 3, 1, None)
        await storage.compact(3)
        assert [record.key for record in (await storage.range(b"", None, revision=3)).records] == [b"a"]


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


async def test_expiring_lists_the_soonest_first_and_only_what_exists(storage: StorageProvider) -> None:
    await put(storage, b"later", expires_at=30.0)
    await put(storage, b"never")
    await put(storage, b"soon", expires_at=10.0)
    await put(storage, b"renewed", expires_at=5.0)
    await put(storage, b"renewed", expires_at=20.0)
    await put(storage, b"kept", expires_at=1.0)
    await put(storage, b"kept")
    await put(storage, b"deleted", expires_at=1.0)
    await delete(storage, b"deleted")
    assert [record.key for record in await storage.expiring(limit=10)] == [b"soon", b"renewed", b"later"]
    assert [record.expires_at for record in await storage.expiring(limit=2)] == [10.0, 20.0]


async def test_wait_beyond_returns_at_the_revision_and_not_before(storage: StorageProvider) -> None:
    assert await storage.wait_beyond(-1) == 0
    reached: list[tuple[str, int]] = []

    async def wait(name: str, revision: int) -> None:
        reached.append((name, await storage.wait_beyond(revision)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "second", 1)
        nursery.start_soon(wait, "first", 0)
        with trio.move_on_after(0):
            await storage.wait_beyond(0)
        await put(storage, b"a")
        await trio.testing.wait_all_tasks_blocked()
        assert reached == [("first", 1)]
        await put(storage, b"a")
    assert reached[1:] == [("second", 2)]


async def test_everything_is_there_after_opening_again(tmp_path: Path) -> None:
    async with SqliteStorage(tmp_path) as storage:
        for number in range(5):
            await put(storage, b"%d" % number, b"x", 50.0 + number)
        await delete(storage, b"0")
        records = (await storage.range(b"", None)).records
        changes = (await storage.changes(b"", None, after=0, limit=100)).changes
    async with SqliteStorage(tmp_path) as storage:
        assert (await storage.range(b"", None)).records == records
        assert (await storage.changes(b"", None, after=0, limit=100)).changes == changes
        info = await storage.info()
        assert info == StorageInfo(6, 0, info.size_bytes)


async def test_a_cancelled_transaction_happens_wholly_or_not(storage: StorageProvider) -> None:
    for number in range(20):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                keys = (b"%d a" % number, b"%d b" % number)
                transaction = Transaction((), tuple(RecordPut(key, b"") for key in keys))
                nursery.start_soon(storage.transact, transaction)
                await trio.testing.wait_all_tasks_blocked(0)
                scope.cancel()
        found = [await storage.get(key) is not None for key in keys]
        assert found in ([True, True], [False, False])
    assert await put(storage, b"after")
