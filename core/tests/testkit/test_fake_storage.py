"""What FakeStorage offers beyond the contract: a disk that outlives it, syncs that take time or fail, crashes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from nanocloud.errors import LockedError, UnavailableError
from nanocloud.providers.storage import Committed, RecordPut, Transaction
from nanocloud.testkit import FakeDisk, FakeStorage

if TYPE_CHECKING:
    from trio.testing import MockClock


async def put(storage: FakeStorage, key: bytes) -> int:
    outcome = await storage.transact(Transaction((), (RecordPut(key, b""),)))
    assert isinstance(outcome, Committed)
    return outcome.revision


async def refused(storage: FakeStorage, key: bytes, match: str) -> None:
    with pytest.raises(UnavailableError, match=match):
        await put(storage, key)


async def keys(storage: FakeStorage) -> list[bytes]:
    return [record.key for record in (await storage.range(b"", None)).records]


async def test_writers_that_come_while_the_disk_syncs_share_the_next_sync(autojump_clock: MockClock) -> None:
    async with FakeStorage(sync_seconds=1) as storage:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(put, storage, b"first")
            await trio.sleep(0.5)
            for number in range(50):
                nursery.start_soon(put, storage, b"%d" % number)
        assert trio.current_time() == 2
        assert len(storage.calls.of("sync")) == 2
        assert (await storage.info()).revision == 51


async def test_nothing_is_seen_or_told_before_it_is_durable(autojump_clock: MockClock) -> None:
    async with FakeStorage(sync_seconds=1) as storage, trio.open_nursery() as nursery:
        nursery.start_soon(put, storage, b"a")
        await trio.sleep(0.9)
        assert await storage.get(b"a") is None
        assert (await storage.info()).revision == 0
        with trio.fail_after(0.2):
            assert await storage.wait_beyond(0) == 1
        assert await storage.get(b"a") is not None


@pytest.mark.parametrize("survivors", [0, 1, 2])
async def test_a_crash_loses_what_was_in_flight_from_some_transaction_on(
    autojump_clock: MockClock, survivors: int
) -> None:
    disk = FakeDisk()
    async with trio.open_nursery() as nursery, FakeStorage(disk, sync_seconds=1) as storage:
        await put(storage, b"acknowledged")
        for key in (b"one", b"two"):
            nursery.start_soon(refused, storage, key, "crashed|closed")
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(0.5)  # "one" is being synced, "two" waits
        nursery.start_soon(refused, storage, b"three", "crashed|closed")
        disk.crash(survivors=survivors)
        await refused(storage, b"late", "crashed")
        with pytest.raises(UnavailableError, match="crashed"):
            await storage.get(b"acknowledged")
        async with FakeStorage(disk) as after:
            assert await keys(after) == [b"acknowledged", b"one"][: 1 + survivors]
            assert await put(after, b"next") == 2 + min(survivors, 1), "a revision that was told is never told again"


async def test_a_group_survives_a_crash_up_to_a_transaction(autojump_clock: MockClock) -> None:
    disk = FakeDisk()
    async with trio.open_nursery() as nursery, FakeStorage(disk, sync_seconds=1) as storage:
        nursery.start_soon(put, storage, b"alone")
        await trio.sleep(0.5)
        for number in range(5):
            nursery.start_soon(refused, storage, b"%d" % number, "crashed|closed")
        await trio.sleep(1)
        group = [transaction.operations[0].key for transaction in disk.in_flight]
        assert len(group) == 5
        disk.crash(survivors=3)
        async with FakeStorage(disk) as after:
            assert set(await keys(after)) == {b"alone", *group[:3]}


async def test_a_failed_sync_is_told_to_its_whole_group_and_ends_all_writing() -> None:
    disk = FakeDisk()
    async with FakeStorage(disk) as storage:
        await put(storage, b"good")
        storage.calls.fail("sync", UnavailableError("input/output error"))
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(refused, storage, b"%d" % number, "input/output error")
        await refused(storage, b"later", "input/output error")
        assert await keys(storage) == [b"good"]
    async with FakeStorage(disk) as storage:
        assert await put(storage, b"later") == 2


async def test_a_cancelled_writer_is_withdrawn_before_the_sync_and_done_after_its_start(
    autojump_clock: MockClock,
) -> None:
    async with FakeStorage(sync_seconds=10) as storage:
        for sync in range(2):
            with trio.move_on_after(5):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(put, storage, b"%d taken up" % sync)
                    await trio.sleep(1)
                    nursery.start_soon(put, storage, b"%d waiting" % sync)
        assert await keys(storage) == [b"0 taken up", b"1 taken up"]


async def test_closing_finishes_what_was_submitted(autojump_clock: MockClock) -> None:
    storage = FakeStorage(sync_seconds=1)
    async with trio.open_nursery() as nursery:
        async with storage:
            for number in range(300):
                nursery.start_soon(storage.transact, Transaction((), (RecordPut(b"%d" % number, b""),)))
            await trio.testing.wait_all_tasks_blocked()
        assert storage.disk.revision == 300
        await refused(storage, b"late", "closed")


async def test_one_storage_at_a_time_has_the_disk() -> None:
    disk = FakeDisk()
    async with FakeStorage(disk):
        with pytest.raises(LockedError):
            await FakeStorage(disk).__aenter__()
        disk.crash()
        async with FakeStorage(disk):
            pass
