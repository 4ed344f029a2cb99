"""What every storage provider must keep of the past: states, changes, compaction."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import trio

from nanocloud.errors import CompactedError, FutureRevisionError
from nanocloud.providers.storage import (
    Committed,
    Record,
    RecordChange,
    RecordDelete,
    RecordPut,
    StorageProvider,
    Transaction,
)
from nanocloud.testkit.suites.base import ProviderSuite

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LIMIT_SECONDS = 30
"""More than any single step takes; a storage that hangs fails instead of hanging the run."""


def puts(*pairs: tuple[bytes, bytes]) -> Transaction:
    return Transaction((), tuple(RecordPut(key, value) for key, value in pairs))


async def put(storage: StorageProvider, key: bytes, value: bytes = b"", expires_at: float | None = None) -> int:
    """Write one key; the transaction's revision."""
    return await commit(storage, RecordPut(key, value, expires_at))


async def delete(storage: StorageProvider, key: bytes) -> int:
    return await commit(storage, RecordDelete(key))


async def commit(storage: StorageProvider, *operations: RecordPut | RecordDelete) -> int:
    with trio.fail_after(LIMIT_SECONDS):
        outcome = await storage.transact(Transaction((), operations))
    assert isinstance(outcome, Committed)
    return outcome.revision


async def history(storage: StorageProvider, *, after: int = 0) -> list[RecordChange]:
    """All changes after a revision, read page by page."""
    found: list[RecordChange] = []
    while (page := await storage.changes(b"", None, after=after, limit=10_000)).changes:
        assert page.through > after
        found, after = [*found, *page.changes], page.through
    return found


async def side_by_side(work: Callable[[int], Awaitable[None]], count: int) -> None:
    with trio.fail_after(LIMIT_SECONDS):
        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(work, number)


class StorageHistorySuite(ProviderSuite[StorageProvider]):
    """A part of StorageProviderSuite."""

    contract = "storage"

    # The past

    async def test_every_state_can_be_read_again(self, provider: StorageProvider) -> None:
        """Every state since the last compaction can be read, and every change since then can be listed again."""
        dice, states = random.Random(3), [dict[bytes, Record]()]
        for _ in range(60):
            keys = [b"%d" % number for number in dice.sample(range(8), 3)]
            state = dict(states[-1])
            made = [
                RecordDelete(key) if dice.random() < 0.3 and key in state else RecordPut(key, dice.randbytes(3))
                for key in keys
            ]
            outcome = await provider.transact(Transaction((), tuple(made)))
            assert isinstance(outcome, Committed)
            for key, record in zip(keys, outcome.records, strict=True):
                state.pop(key, None)
                if record is not None:
                    state[key] = record
            states.append(state)
        for revision, state in enumerate(states):
            page = await provider.range(b"", None, revision=revision)
            assert page.records == tuple(state[key] for key in sorted(state))
            assert page.revision == revision
            for key in (b"0", b"5"):
                assert await provider.get(key, revision=revision) == state.get(key)
        replayed: dict[bytes, Record | None] = {}
        for change in await history(provider):
            assert change.previous == replayed.get(change.key)
            replayed[change.key] = change.record
        assert {key: record for key, record in replayed.items() if record is not None} == states[-1]

    async def test_changes_come_oldest_first(self, provider: StorageProvider) -> None:
        """What changed in the range after revision ``after``, oldest first, without waiting."""
        await put(provider, b"a", b"1")
        await commit(provider, RecordPut(b"b", b"1"), RecordDelete(b"a"))
        await put(provider, b"a", b"2")
        one, two = Record(b"a", b"1", 1, 1, 1, None), Record(b"b", b"1", 2, 2, 1, None)
        changes = (await provider.changes(b"", None, after=0, limit=100)).changes
        assert changes == (
            RecordChange(b"a", 1, one, None),
            RecordChange(b"b", 2, two, None),
            RecordChange(b"a", 2, None, one),
            RecordChange(b"a", 3, Record(b"a", b"2", 3, 3, 1, None), None),
        )
        assert (await provider.changes(b"", None, after=2, limit=100)).changes == changes[3:]
        assert (await provider.changes(b"b", b"c", after=1, limit=100)).changes == changes[1:2]

    async def test_a_page_of_changes_never_cuts_a_transaction(self, provider: StorageProvider) -> None:
        """A page holds whole transactions (as far as they touch the range) and ends after about ``limit`` changes, or
        earlier if they are large; it is empty only if nothing changed up to ``through``, which is then the store's last
        revision."""
        for _ in range(6):
            await commit(provider, *(RecordPut(b"%d" % number, b"") for number in range(5)))
        after, pages = 0, 0
        while (page := await provider.changes(b"", None, after=after, limit=7)).changes:
            assert len(page.changes) % 5 == 0
            assert {change.revision for change in page.changes} == set(range(after + 1, page.through + 1))
            after, pages = page.through, pages + 1
        assert 2 <= pages <= 6
        assert (after, page.through) == (6, 6)
        nothing = await provider.changes(b"x", None, after=0, limit=7)
        assert (nothing.changes, nothing.through) == ((), 6)

    async def test_who_follows_the_changes_misses_none(self, provider: StorageProvider) -> None:
        """The page is complete up to this revision: reading goes on with ``after=through``."""
        writers, each = 8, 20
        followed: list[int] = []

        async def follow() -> None:
            after = 0
            while after < writers * each:
                last = await provider.wait_beyond(after)
                page = await provider.changes(b"", None, after=after, limit=5)
                assert after < page.through
                assert page.changes
                followed.extend(change.revision for change in page.changes)
                assert (await provider.changes(b"", None, after=last, limit=1)).through >= last
                after = page.through

        async def write(number: int) -> None:
            for count in range(each):
                await put(provider, b"%d" % number, b"%d" % count)

        with trio.fail_after(LIMIT_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(follow)
                for number in range(writers):
                    nursery.start_soon(write, number)
        assert followed == list(range(1, writers * each + 1))

    async def test_what_is_not_reached_yet_is_refused(self, provider: StorageProvider) -> None:
        """FutureRevisionError: ``revision`` is not reached yet."""
        await put(provider, b"a")
        for call in (
            lambda: provider.get(b"a", revision=2),
            lambda: provider.range(b"", None, revision=2),
            lambda: provider.compact(2),
        ):
            with pytest.raises(FutureRevisionError) as caught:
                await call()
            assert (caught.value.requested, caught.value.current) == (2, 1)

    async def test_changes_that_are_not_reached_yet_are_refused(self, provider: StorageProvider) -> None:
        """FutureRevisionError: ``after`` is not reached yet."""
        await put(provider, b"a")
        with pytest.raises(FutureRevisionError):
            await provider.changes(b"", None, after=2, limit=1)

    # Compaction

    async def test_compaction_forgets_what_was_before(self, provider: StorageProvider) -> None:
        """Forget states before ``revision``, which itself stays readable; returns when the space is free for reuse."""
        for value in (b"1", b"2", b"3"):
            await put(provider, b"a", value)
        await provider.compact(2)
        assert (await provider.info()).compacted == 2
        assert await provider.get(b"a", revision=2) == Record(b"a", b"2", 1, 2, 2, None)
        assert await provider.get(b"a") == Record(b"a", b"3", 1, 3, 3, None)
        assert [change.revision for change in await history(provider, after=2)] == [3]

    async def test_a_compacted_state_is_refused(self, provider: StorageProvider) -> None:
        """CompactedError: ``revision`` lies before the compacted one."""
        for _ in range(3):
            await put(provider, b"a")
        await provider.compact(2)
        for requested in (0, 1):
            with pytest.raises(CompactedError) as caught:
                await provider.get(b"a", revision=requested)
            assert (caught.value.requested, caught.value.compacted) == (requested, 2)
            with pytest.raises(CompactedError):
                await provider.range(b"", None, revision=requested)

    async def test_compacted_changes_are_refused(self, provider: StorageProvider) -> None:
        """CompactedError: ``after`` lies before the compacted revision: some changes are forgotten."""
        for _ in range(3):
            await put(provider, b"a")
        await provider.compact(2)
        for after in (0, 1):
            with pytest.raises(CompactedError):
                await provider.changes(b"", None, after=after, limit=10)

    async def test_what_was_compacted_stays_so(self, make_provider: Callable[[], StorageProvider]) -> None:
        """CompactedError: ``after`` lies before the compacted revision: some changes are forgotten."""
        # Also by a later server, or a watch would go on over a past with holes.

        async def compact(storage: StorageProvider, tell: Callable[[str], None]) -> None:
            for _ in range(3):
                await put(storage, b"a")
            await storage.compact(2)

        await self.end_abruptly(make_provider, compact)
        async with make_provider() as storage:
            assert (await storage.info()).compacted == 2
            with pytest.raises(CompactedError):
                await storage.get(b"a", revision=1)
            with pytest.raises(CompactedError):
                await storage.changes(b"", None, after=1, limit=10)
            assert [change.revision for change in await history(storage, after=2)] == [3]

    async def test_what_was_before_a_change_outlives_its_compaction(self, provider: StorageProvider) -> None:
        """``previous`` is filled in also where its own revision was compacted."""
        await put(provider, b"a", b"1")
        await put(provider, b"b")
        await put(provider, b"a", b"2")
        await provider.compact(2)
        [change] = await history(provider, after=2)
        assert change.previous == Record(b"a", b"1", 1, 1, 1, None)

    async def test_compaction_keeps_what_exists(self, provider: StorageProvider) -> None:
        """Existing records stay, whatever their age; records deleted at or before ``revision`` go for good."""
        await put(provider, b"old", b"kept", expires_at=9.0)
        await put(provider, b"gone")
        await delete(provider, b"gone")
        last = await put(provider, b"new")
        await provider.compact(last)
        assert await provider.get(b"old") == Record(b"old", b"kept", 1, 1, 1, 9.0)
        assert [record.key for record in (await provider.range(b"", None, revision=last)).records] == [b"new", b"old"]
        assert [record.key for record in await provider.expiring(limit=9)] == [b"old"]
        await put(provider, b"gone", b"again")
        assert await provider.get(b"gone") == Record(b"gone", b"again", 5, 5, 1, None)

    async def test_compaction_repeats_and_never_goes_back(self, provider: StorageProvider) -> None:
        """Does nothing where that much is compacted already."""
        for _ in range(5):
            await put(provider, b"a")
        for revision in (4, 4, 2, 0):
            await provider.compact(revision)
        assert (await provider.info()).compacted == 4

    async def test_writers_go_on_while_it_compacts(self, provider: StorageProvider) -> None:
        """Transactions go on meanwhile."""
        for number in range(200):
            await put(provider, b"%d" % (number % 20), b"x" * 100)

        async def work(number: int) -> None:
            await (provider.compact(100 + number) if number % 5 == 0 else put(provider, b"w%d" % number))

        await side_by_side(work, 30)
        assert (await provider.info()).compacted == 125
        assert len((await provider.range(b"w", b"x")).records) == 24

    async def test_an_interrupted_compaction_is_finished_later(
        self, make_provider: Callable[[], StorageProvider]
    ) -> None:
        """Cancelled or killed, it is finished later."""

        async def compact(storage: StorageProvider, tell: Callable[[str], None]) -> None:
            for number in range(300):
                await put(storage, b"%d" % (number % 7), b"x" * 500)
            with trio.move_on_after(0):
                await storage.compact(100)
            tell("compacting")
            await storage.compact(290)

        await self.end_abruptly(make_provider, compact, after=1)
        async with make_provider() as storage:
            state = (await storage.range(b"", None)).records
            assert [record.key for record in state] == [b"%d" % number for number in range(7)]
            last = (await storage.info()).revision
            await storage.compact(last)
            assert (await storage.info()).compacted == last
            assert (await storage.range(b"", None, revision=last)).records == state
