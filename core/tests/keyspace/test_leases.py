"""Leases, in virtual time: trio's mock clock moves the wall clock of the keyspace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from nanocloud.errors import UnavailableError
from nanocloud.keyspace import ChangeKind, Keyspace, Put, Watcher
from nanocloud.storage import SqliteStorage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from trio.testing import MockClock

    from nanocloud.providers.storage import Committed, Rejected, Transaction

EPOCH = 1_790_000_000.0


def wall_clock() -> float:
    return EPOCH + trio.current_time()


def opened(storage: SqliteStorage) -> AbstractAsyncContextManager[Keyspace]:
    return Keyspace.open(storage, clock=wall_clock)


@pytest.fixture
async def storage(tmp_path: Path, mock_clock: MockClock) -> AsyncIterator[SqliteStorage]:
    # The clock comes first so that nothing runs on another one. It does not jump by itself: trio would do that while
    # the writer thread is at work.
    async with SqliteStorage(tmp_path / "keyspace") as entered:
        yield entered


async def deleted(watcher: Watcher) -> tuple[str, ...]:
    while (change := await watcher.__anext__()).kind is not ChangeKind.DELETE:
        pass
    return change.key


async def test_a_key_goes_when_its_time_has_come(storage: SqliteStorage, mock_clock: MockClock) -> None:
    async with opened(storage) as keyspace, keyspace.watch((), after=0) as watcher:
        entry = await keyspace.put(("lease",), b"1", ttl_seconds=60)
        assert entry.expires_at == pytest.approx(wall_clock() + 60)
        await keyspace.put(("stays",), b"1")
        mock_clock.jump(59.9)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert await keyspace.get(("lease",)) == entry
        mock_clock.jump(0.1)
        assert await deleted(watcher) == ("lease",)
        assert [left.key for left in (await keyspace.list(())).entries] == [("stays",)]


async def test_keys_go_in_the_order_of_their_expiry(storage: SqliteStorage, mock_clock: MockClock) -> None:
    async with opened(storage) as keyspace, keyspace.watch((), after=0) as watcher:
        for name, ttl in (("c", 3000), ("a", 10), ("b", 20)):
            await keyspace.put((name,), b"", ttl_seconds=ttl)
        for name in ("a", "b"):
            await trio.testing.wait_all_tasks_blocked(0.01)
            mock_clock.jump(10)
            assert await deleted(watcher) == (name,)
        await trio.testing.wait_all_tasks_blocked(0.01)
        mock_clock.jump(2980)
        assert await deleted(watcher) == ("c",)


async def test_a_renewed_key_survives(storage: SqliteStorage, mock_clock: MockClock) -> None:
    async with opened(storage) as keyspace, keyspace.watch((), after=0) as watcher:
        for _ in range(5):
            await keyspace.put(("leader",), b"me", ttl_seconds=15)
            await trio.testing.wait_all_tasks_blocked(0.01)
            mock_clock.jump(10)
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert await keyspace.get(("leader",)) is not None
        mock_clock.jump(10)
        assert await deleted(watcher) == ("leader",)


async def test_writing_without_a_time_to_live_ends_the_lease(storage: SqliteStorage, mock_clock: MockClock) -> None:
    async with opened(storage) as keyspace, keyspace.watch((), after=0) as watcher:
        await keyspace.put(("kept",), b"", ttl_seconds=10)
        await keyspace.put(("goes",), b"", ttl_seconds=10)
        assert (await keyspace.put(("kept",), b"")).expires_at is None
        mock_clock.jump(1000)
        assert await deleted(watcher) == ("goes",)
        assert await keyspace.get(("kept",)) is not None


async def test_many_keys_expire_together(storage: SqliteStorage, mock_clock: MockClock) -> None:
    async with opened(storage) as keyspace, keyspace.watch((), after=0) as watcher:
        await keyspace.transact([], [Put(("many", str(number)), b"", ttl_seconds=5) for number in range(300)])
        mock_clock.jump(5)
        assert len({await deleted(watcher) for _ in range(300)}) == 300
        assert (await keyspace.list(())).entries == ()


async def test_what_expired_while_nobody_ran_is_gone_at_the_start(
    storage: SqliteStorage, mock_clock: MockClock
) -> None:
    async with opened(storage) as keyspace:
        await keyspace.transact([], [Put(("short", str(number)), b"", ttl_seconds=60) for number in range(100)])
        await keyspace.put(("long",), b"", ttl_seconds=7200)
    mock_clock.jump(3600)
    async with opened(storage) as keyspace:
        assert [entry.key for entry in (await keyspace.list(())).entries] == [("long",)]
        async with keyspace.watch((), after=keyspace.revision) as watcher:
            mock_clock.jump(3600)
            assert await deleted(watcher) == ("long",)


async def test_a_wall_clock_that_is_set_is_noticed(storage: SqliteStorage, mock_clock: MockClock) -> None:
    step = 0.0
    stepped = Keyspace.open(storage, clock=lambda: wall_clock() + step)
    async with stepped as keyspace, keyspace.watch((), after=0) as watcher:
        await keyspace.put(("lease",), b"", ttl_seconds=86400)
        await trio.testing.wait_all_tasks_blocked(0.01)
        step = 86400.0
        mock_clock.jump(600)
        assert await deleted(watcher) == ("lease",)


class FullStorage(SqliteStorage):
    """Refuses deletes while ``full``."""

    full = False
    refused = 0

    async def transact(self, transaction: Transaction) -> Committed | Rejected:
        if self.full:
            self.refused += 1
            raise UnavailableError("no space")
        return await super().transact(transaction)


async def test_a_full_disk_delays_expiry_and_does_not_end_the_keyspace(tmp_path: Path, mock_clock: MockClock) -> None:
    async with FullStorage(tmp_path) as storage, opened(storage) as keyspace, keyspace.watch((), after=0) as watcher:
        await keyspace.put(("lease",), b"", ttl_seconds=10)
        await trio.testing.wait_all_tasks_blocked(0.01)
        storage.full = True
        for expected, seconds in ((1, 10.0), (2, 1.0), (3, 5.0)):
            mock_clock.jump(seconds)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert storage.refused == expected
        storage.full = False
        mock_clock.jump(30.0)
        assert await deleted(watcher) == ("lease",)
