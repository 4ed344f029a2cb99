"""Watches: order, no gaps, isolation, slow readers, compaction."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import trio

from nanocloud.errors import CompactedError, FutureRevisionError, UnavailableError
from nanocloud.keyspace import Change, ChangeKind, Compare, Delete, Entry, Keyspace, Put, Watcher
from nanocloud.storage import SqliteStorage
from nanocloud.testkit import FakeStorage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trio.testing import MockClock

    from nanocloud.providers.storage import ChangePage


@pytest.fixture
async def keyspace(tmp_path: Path) -> AsyncIterator[Keyspace]:
    async with SqliteStorage(tmp_path / "keyspace") as storage, Keyspace.open(storage) as opened:
        yield opened


async def take(watcher: Watcher, count: int) -> list[Change]:
    with trio.fail_after(30):
        return [await watcher.__anext__() for _ in range(count)]


async def test_a_watch_replays_the_past_and_goes_on_live(keyspace: Keyspace) -> None:
    one = await keyspace.put(("a", "x"), b"1")
    two = await keyspace.put(("a", "x"), b"2")
    async with keyspace.watch(("a",), after=1) as watcher:
        assert await take(watcher, 1) == [Change(ChangeKind.PUT, ("a", "x"), two, one, 2)]
        await keyspace.delete(("a", "x"))
        assert await take(watcher, 1) == [Change(ChangeKind.DELETE, ("a", "x"), None, two, 3)]
        three = await keyspace.put(("a", "x"), b"3")
        assert await take(watcher, 1) == [Change(ChangeKind.PUT, ("a", "x"), three, None, 4)]


async def test_a_watch_sees_its_prefix_only(keyspace: Keyspace) -> None:
    async with keyspace.watch(("ns", "prod"), after=0) as live:
        for key in (("ns", "prod2", "a"), ("ns", "prod", "a"), ("ns",), ("ns", "prod"), ("prod",)):
            await keyspace.put(key, b"")
        async with keyspace.watch(("ns", "prod"), after=0) as replay:
            for watcher in (live, replay):
                assert [change.key for change in await take(watcher, 2)] == [("ns", "prod", "a"), ("ns", "prod")]
            await keyspace.put(("ns", "production"), b"")
            await keyspace.put(("ns", "prod", "last"), b"")
            for watcher in (live, replay):
                assert [change.key for change in await take(watcher, 1)] == [("ns", "prod", "last")]


async def test_the_changes_of_one_transaction_stay_together(keyspace: Keyspace) -> None:
    async with keyspace.watch(("a",), after=0) as watcher:
        await keyspace.transact(
            [Compare(("a", "1"), 0)], [Put(("a", "1"), b""), Put(("b",), b""), Put(("a", "2"), b"")]
        )
        await keyspace.transact([], [Delete(("a", "1")), Delete(("missing",)), Put(("a", "3"), b"")])
        seen = [(change.revision, change.kind.name, change.key[1]) for change in await take(watcher, 4)]
        assert seen == [(1, "PUT", "1"), (1, "PUT", "2"), (2, "DELETE", "1"), (2, "PUT", "3")]


async def read_one(watcher: Watcher, seen: list[int]) -> None:
    seen.append((await watcher.__anext__()).revision)


async def test_a_cancelled_wait_loses_nothing(keyspace: Keyspace) -> None:
    async with keyspace.watch((), after=0) as watcher:
        seen: list[int] = []
        for number in range(1, 30):
            await keyspace.put(("a",), b"")
            with trio.move_on_after(0):  # cancelled at the first checkpoint
                seen.append((await watcher.__anext__()).revision)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_one, watcher, seen)
                if number % 3 == 0:  # cancelled while it waits
                    await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        seen += [change.revision for change in await take(watcher, 29 - len(seen))]
        assert seen == list(range(1, 30))


async def test_progress_tells_how_far_the_reader_is(keyspace: Keyspace) -> None:
    for number in range(3):
        await keyspace.put(("a", str(number)), b"")
    async with keyspace.watch(("a",), after=0) as watcher:
        assert watcher.progress() == 0
        for expected in (1, 2, 3):
            assert (await watcher.__anext__()).revision == expected
            assert watcher.progress() == expected
        async with keyspace.watch(("b",), after=3) as other:
            await keyspace.put(("b",), b"")
            await other.__anext__()
        assert watcher.progress() == 4  # which did not concern it
        await keyspace.put(("a", "0"), b"")
        await keyspace.put(("a", "1"), b"")
        assert (await watcher.__anext__()).revision == 5
        assert watcher.progress() >= 5


async def test_a_watch_from_the_future_or_from_forgotten_times_is_refused(keyspace: Keyspace) -> None:
    for _ in range(5):
        await keyspace.put(("a",), b"")
    await keyspace.compact(3)
    with pytest.raises(CompactedError) as compacted:
        async with keyspace.watch((), after=2):
            pass
    assert (compacted.value.requested, compacted.value.compacted) == (2, 3)
    with pytest.raises(FutureRevisionError) as future:
        async with keyspace.watch((), after=6):
            pass
    assert (future.value.requested, future.value.current) == (6, 5)
    async with keyspace.watch((), after=3) as watcher:
        assert [change.revision for change in await take(watcher, 2)] == [4, 5]


async def test_a_watch_can_begin_at_the_revision_just_written(keyspace: Keyspace) -> None:
    # The hub may not have read that revision yet: the watch must neither fail nor show it.
    for number in range(1, 20):
        entry = await keyspace.put(("a",), b"")
        async with keyspace.watch((), after=entry.mod_revision) as watcher:
            second = await keyspace.put(("b",), b"")
            assert (await watcher.__anext__()).revision == second.mod_revision == 2 * number


async def test_a_slow_reader_costs_no_memory_and_misses_nothing(keyspace: Keyspace) -> None:
    async with keyspace.watch(("a",), after=0) as watcher:
        await keyspace.put(("a", "first"), b"")
        await take(watcher, 1)
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                for number in range(1000):
                    nursery.start_soon(keyspace.put, ("a", str(number)), b"x" * 100)
            assert len(watcher._queue) <= 1024
        seen = await take(watcher, 3000)
        assert [change.revision for change in seen] == list(range(2, 3002))
        await keyspace.put(("a", "last"), b"")
        assert (await take(watcher, 1))[0].key == ("a", "last")


async def test_large_values_count_against_the_queue(keyspace: Keyspace) -> None:
    async with keyspace.watch((), after=0) as watcher:
        await keyspace.put(("a",), b"")
        await take(watcher, 1)
        for _ in range(20):
            await keyspace.put(("a",), b"x" * (1 << 20))
        assert sum(len(change.entry.value) for change in watcher._queue if change.entry) <= 8 << 20
        assert [change.revision for change in await take(watcher, 20)] == list(range(2, 22))


async def test_a_slow_reader_whose_place_is_compacted_is_told(keyspace: Keyspace) -> None:
    async with keyspace.watch((), after=0) as watcher:
        await keyspace.put(("a",), b"")
        await take(watcher, 1)
        async with trio.open_nursery() as nursery:
            for number in range(2000):
                nursery.start_soon(keyspace.put, ("a", str(number)), b"")
        await keyspace.compact(2001)
        with pytest.raises(CompactedError):
            await take(watcher, 2000)


async def test_a_reader_that_keeps_up_is_not_hurt_by_compaction(keyspace: Keyspace) -> None:
    async with keyspace.watch((), after=0) as watcher:
        for number in range(1, 50):
            entry = await keyspace.put(("a", str(number % 5)), b"")
            await keyspace.compact(entry.mod_revision)
        assert [change.revision for change in await take(watcher, 49)] == list(range(1, 50))


class HeldStorage(SqliteStorage):
    """Lets nobody read changes until ``gate`` is set."""

    gate: trio.Event

    async def changes(self, start: bytes, end: bytes | None, *, after: int, limit: int) -> ChangePage:
        await self.gate.wait()
        return await super().changes(start, end, after=after, limit=limit)


async def test_compaction_waits_for_watches_that_are_about_to_be_told(tmp_path: Path) -> None:
    storage = HeldStorage(tmp_path)
    storage.gate = trio.Event()
    async with storage, Keyspace.open(storage) as keyspace, keyspace.watch((), after=0) as watcher:
        for _ in range(3):
            await keyspace.put(("a",), b"")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keyspace.compact, 3)
            await trio.testing.wait_all_tasks_blocked(0.01)
            storage.gate.set()
        assert keyspace.compacted == 3
        assert [change.revision for change in await take(watcher, 3)] == [1, 2, 3]


async def test_watches_have_no_gaps_under_concurrent_writers_and_compaction(keyspace: Keyspace) -> None:
    writers, writes = 8, 150
    written: dict[int, tuple[str, ...]] = {}
    finished = trio.Event()
    followed: dict[str, list[Change]] = {}

    async def write(number: int) -> None:
        dice = random.Random(number)
        for _ in range(writes):
            key = (f"ns{number % 2}", str(dice.randrange(10)))
            written[(await keyspace.put(key, b"")).mod_revision] = key

    async def compact() -> None:
        while not finished.is_set():
            await keyspace.compact(max(keyspace.revision - 5, 0))

    async def follow(name: str, prefix: tuple[str, ...], after: int, count: int) -> None:
        """As a client does: when its place is gone, it lists and watches from there."""
        changes = followed[name] = []
        state: dict[tuple[str, ...], Entry] = {}
        revision = after
        while revision < writers * writes:
            try:
                async with keyspace.watch(prefix, after=revision) as watcher:
                    async for change in watcher:
                        assert change.revision > revision
                        assert (change.previous or None) == state.get(change.key)
                        assert change.entry is not None
                        state[change.key], revision = change.entry, change.revision
                        changes.append(change)
                        if len(changes) == count:
                            return
                        if name == "slow":
                            for _ in range(20):
                                await trio.lowlevel.checkpoint()
            except CompactedError:
                assert name == "slow"
                page = await keyspace.list(prefix)
                state, revision = {entry.key: entry for entry in page.entries}, page.revision

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow, "all", (), 0, writers * writes)
            nursery.start_soon(follow, "one", ("ns1",), 0, writers * writes // 2)
            await trio.testing.wait_all_tasks_blocked()
            async with trio.open_nursery() as writing:
                for number in range(writers):
                    writing.start_soon(write, number)
                writing.start_soon(follow, "slow", (), 0, writers * writes)
                nursery.start_soon(compact)
            finished.set()
    assert {change.revision: change.key for change in followed["all"]} == written
    assert [change.revision for change in followed["all"]] == list(range(1, writers * writes + 1))
    ones = [revision for revision in sorted(written) if written[revision][0] == "ns1"]
    assert [change.revision for change in followed["one"]] == ones


async def test_a_key_that_changed_before_has_new_followers_and_loses_old_ones(keyspace: Keyspace) -> None:
    await keyspace.put(("a", "x"), b"")
    await keyspace._hub.reached(1)
    async with keyspace.watch(("a",), after=1) as first:
        await keyspace.put(("a", "x"), b"")
        assert [change.revision for change in await take(first, 1)] == [2]
        async with keyspace.watch((), after=2) as second:
            await keyspace.put(("a", "x"), b"")
            assert [change.revision for change in await take(first, 1) + await take(second, 1)] == [3, 3]
    await keyspace.put(("a", "x"), b"")
    await keyspace._hub.reached(4)
    assert (first.progress(), second.progress()) == (4, 4)  # nothing is queued


async def test_what_the_hub_knows_of_keys_is_bounded(keyspace: Keyspace) -> None:
    for first in range(0, 3000, 500):
        await keyspace.transact([], [Put((f"{number}",), b"") for number in range(first, first + 500)])
    await keyspace._hub.reached(6)
    assert 0 < len(keyspace._hub._routes) <= 1024


async def test_ended_watches_leave_nothing_in_the_hub(keyspace: Keyspace) -> None:
    for number in range(10):
        async with keyspace.watch(("a", str(number)), after=0), keyspace.watch(("a", str(number)), after=0):
            assert keyspace._hub._watchers
    assert not keyspace._hub._watchers


@pytest.mark.parametrize("method", ["wait_beyond", "changes"])
async def test_watches_outlive_a_storage_that_does_not_answer_for_a_while(
    method: str, autojump_clock: MockClock
) -> None:
    async with FakeStorage() as storage, Keyspace.open(storage) as keyspace, keyspace.watch((), after=0) as watcher:
        storage.calls.fail(method, UnavailableError("input/output error"), times=3)
        for number in range(3):
            await keyspace.put(("a",), b"%d" % number)
        assert [change.revision for change in await take(watcher, 3)] == [1, 2, 3]


async def test_compaction_goes_on_after_the_storage_did_not_answer(autojump_clock: MockClock) -> None:
    async with FakeStorage() as storage, Keyspace.open(storage, keep=10) as keyspace:
        for method in ("info", "wait_beyond", "compact"):
            storage.calls.fail(method, UnavailableError("input/output error"))
            for _ in range(20):
                await keyspace.put(("a",), b"")
            await trio.sleep(120)
            assert (await storage.info()).compacted >= keyspace.revision - 11
