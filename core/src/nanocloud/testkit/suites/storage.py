"""What every storage provider must keep."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, ClassVar

import trio

from nanocloud.errors import LockedError
from nanocloud.providers.storage import (
    MAX_KEY_BYTES,
    MAX_OPERATIONS,
    MAX_VALUE_BYTES,
    Committed,
    Record,
    RecordChange,
    RecordCheck,
    RecordDelete,
    RecordPut,
    Rejected,
    StorageProvider,
    Transaction,
)
from nanocloud.testkit.suites.cancelling import cancel_at_every_await
from nanocloud.testkit.suites.storage_history import (
    LIMIT_SECONDS,
    StorageHistorySuite,
    commit,
    delete,
    history,
    put,
    puts,
    side_by_side,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class StorageProviderSuite(StorageHistorySuite):
    kills: ClassVar[int] = 4
    """How often the storage is killed while it writes."""

    # Revisions

    async def test_a_new_storage_is_at_revision_zero(self, provider: StorageProvider) -> None:
        """One counter over the whole store, 0 while it is empty."""
        info = await provider.info()
        assert (info.revision, info.compacted) == (0, 0)
        assert await provider.get(b"a") is None
        assert (await provider.range(b"", None)).records == ()
        assert (await provider.changes(b"", None, after=0, limit=10)).through == 0

    async def test_a_transaction_is_one_revision_for_all_its_keys(self, provider: StorageProvider) -> None:
        """Each transaction that changes something takes the next number, once; all its changes carry that number."""
        operations = (RecordPut(b"a", b"1"), RecordPut(b"b", b"2", 99.5))
        outcome = await provider.transact(Transaction((), operations))
        assert outcome == Committed(1, 2, (Record(b"a", b"1", 1, 1, 1, None), Record(b"b", b"2", 1, 1, 1, 99.5)))
        assert [await put(provider, b"c"), await delete(provider, b"a"), await put(provider, b"a")] == [2, 3, 4]
        assert [change.revision for change in await history(provider)] == [1, 1, 2, 3, 4]
        assert (await provider.info()).revision == 4

    async def test_what_changes_nothing_takes_no_revision(self, provider: StorageProvider) -> None:
        """One that changes nothing takes none."""
        await put(provider, b"a")
        assert await provider.transact(Transaction((), (RecordDelete(b"x"),))) == Committed(1, 0, (None,))
        assert await provider.transact(Transaction((RecordCheck(b"a", 1),), ())) == Committed(1, 0, ())
        assert await put(provider, b"b") == 2

    async def test_a_revision_is_never_given_twice(self, make_provider: Callable[[], StorageProvider]) -> None:
        """Numbers are never reused, also not after a crash."""
        # The last revision must be known although nothing of it is left to be read.

        async def write_and_forget(storage: StorageProvider, tell: Callable[[str], None]) -> None:
            await put(storage, b"a")
            await storage.compact(await delete(storage, b"a"))

        await self.end_abruptly(make_provider, write_and_forget)
        async with make_provider() as storage:
            assert (await storage.info()).revision == 2
            assert await put(storage, b"a") == 3
            assert await storage.get(b"a") == Record(b"a", b"", 3, 3, 1, None)

    async def test_versions_count_writes(self, provider: StorageProvider) -> None:
        """Writes since creation: 1 for a new key."""
        await put(provider, b"a", b"1")
        await put(provider, b"b")
        await put(provider, b"a", b"2")
        assert await provider.get(b"a") == Record(b"a", b"2", 1, 3, 2, None)

    async def test_a_key_made_again_is_a_new_one(self, provider: StorageProvider) -> None:
        """Of the transaction that made the key; a key that was deleted and made again is a new one."""
        for _ in range(2):
            await put(provider, b"a")
        await delete(provider, b"a")
        await put(provider, b"a", b"3")
        assert await provider.get(b"a") == Record(b"a", b"3", 4, 4, 1, None)

    # Transactions

    async def test_checks_are_asked_in_order(self, provider: StorageProvider) -> None:
        """The first check, in order, that did not hold. Nothing changed."""
        await put(provider, b"a")
        checks = (RecordCheck(b"a", 1), RecordCheck(b"b", 7), RecordCheck(b"a", 9))
        assert await provider.transact(Transaction(checks, (RecordPut(b"c", b""),))) == Rejected(b"b", 7, 0)
        assert await provider.get(b"c") is None
        assert (await provider.info()).revision == 1

    async def test_zero_stands_for_no_key(self, provider: StorageProvider) -> None:
        """True where the key's mod revision is ``mod_revision``; 0 stands for a key that does not exist."""
        absent = Transaction((RecordCheck(b"a", 0),), (RecordPut(b"a", b""),))
        assert (await provider.transact(absent)) == Committed(1, 1, (Record(b"a", b"", 1, 1, 1, None),))
        assert await provider.transact(absent) == Rejected(b"a", 0, 1)
        await delete(provider, b"a")
        assert await provider.transact(Transaction((RecordCheck(b"a", 1),), ())) == Rejected(b"a", 1, 0)
        assert isinstance(await provider.transact(absent), Committed)

    async def test_a_key_that_is_not_there_can_be_deleted(self, provider: StorageProvider) -> None:
        """Remove the key; nothing happens where it does not exist."""
        await put(provider, b"a")
        mixed = Transaction((), (RecordDelete(b"x"), RecordDelete(b"a"), RecordPut(b"b", b"")))
        assert await provider.transact(mixed) == Committed(2, 2, (None, None, Record(b"b", b"", 2, 2, 1, None)))
        assert [change.key for change in await history(provider, after=1)] == [b"a", b"b"]
        assert [record.key for record in (await provider.range(b"", None)).records] == [b"b"]

    async def test_concurrent_transactions_are_checked_one_after_the_other(self, provider: StorageProvider) -> None:
        """Concurrent transactions have an order, the order of their revisions, and each one's checks are made against
        the state that all earlier ones left."""
        await put(provider, b"n")
        outcomes: list[Committed | Rejected] = []

        async def claim(number: int) -> None:
            outcomes.append(
                await provider.transact(Transaction((RecordCheck(b"n", 1),), (RecordPut(b"n", b"%d" % number),)))
            )

        await beside_a_writer(provider, claim, 50)
        won = [outcome for outcome in outcomes if isinstance(outcome, Committed)]
        assert len(won) == 1
        assert {outcome for outcome in outcomes if isinstance(outcome, Rejected)} == {
            Rejected(b"n", 1, won[0].revision)
        }

    async def test_a_refused_transaction_disturbs_no_other(self, provider: StorageProvider) -> None:
        """One that is refused changes nothing and disturbs no other."""
        revisions: list[int] = []

        async def write(number: int) -> None:
            refused = Transaction((RecordCheck(b"n", 99),), (RecordPut(b"refused", b""),))
            assert isinstance(await provider.transact(refused), Rejected)
            revisions.append(await put(provider, b"own%02d" % number))

        await side_by_side(write, 50)
        assert sorted(revisions) == list(range(1, 51))
        assert await provider.get(b"refused") is None
        assert len((await provider.range(b"own", b"owo")).records) == 50

    async def test_concurrent_writers_lose_nothing(self, provider: StorageProvider) -> None:
        """All methods are safe to call concurrently from one trio thread."""
        dice = random.Random(7)
        sums = [dice.randrange(10) for _ in range(40)]

        async def add(number: int) -> None:
            while True:
                old = await provider.get(b"sum")
                total = (int(old.value) if old else 0) + sums[number]
                check = RecordCheck(b"sum", old.mod_revision if old else 0)
                change = Transaction((check,), (RecordPut(b"sum", b"%d" % total),))
                if isinstance(await provider.transact(change), Committed):
                    return
                assert (await provider.range(b"", None)).records

        await beside_a_writer(provider, add, len(sums))
        record = await provider.get(b"sum")
        assert record is not None
        assert (int(record.value), record.version) == (sum(sums), len(sums))

    async def test_a_read_sees_what_was_acknowledged(self, provider: StorageProvider) -> None:
        """A read without ``revision`` sees every transaction that was acknowledged before the read began."""
        for number in range(20):
            revision = await put(provider, b"a", b"%d" % number)
            record = await provider.get(b"a")
            assert record is not None
            assert (record.value, record.mod_revision) == (b"%d" % number, revision)
            assert (await provider.range(b"", None)).records == (record,)
            assert (await provider.info()).revision == revision

    async def test_what_was_acknowledged_survives_a_crash(self, make_provider: Callable[[], StorageProvider]) -> None:
        """What ``transact`` returned survives a crash of the process and of the machine."""
        dice, acknowledged = random.Random(20), dict[int, set[bytes]]()
        for _ in range(self.kills):
            told = await self.end_abruptly(make_provider, write_for_ever, after=dice.randrange(1, 120))
            for revision, *keys in map(str.split, told):
                acknowledged[int(revision)] = {key.encode() for key in keys}
            async with make_provider() as storage:
                written = by_revision(await history(storage))
            lost = {revision for revision, keys in acknowledged.items() if not keys <= written.get(revision, set())}
            assert lost == set()

    async def test_no_transaction_is_there_in_part_after_a_crash(
        self, make_provider: Callable[[], StorageProvider]
    ) -> None:
        """A transaction takes effect wholly or not at all."""
        dice = random.Random(21)
        for _ in range(self.kills):
            await self.end_abruptly(make_provider, write_for_ever, after=dice.randrange(1, 120))
            async with make_provider() as storage:
                changes, state = await history(storage), dict[bytes, Record]()
                for change in changes:
                    assert change.previous == state.pop(change.key, None)
                    if change.record is not None:
                        state[change.key] = change.record
                assert {len(keys) for keys in by_revision(changes).values()} <= {KEYS_AT_ONCE}
                # The present is the history's end.
                assert (await storage.range(b"", None)).records == tuple(state[key] for key in sorted(state))

    async def test_a_crash_leaves_no_gap(self, make_provider: Callable[[], StorageProvider]) -> None:
        """Numbers are never reused, also not after a crash."""
        dice, told = random.Random(22), list[int]()
        for _ in range(self.kills):
            lines = await self.end_abruptly(make_provider, write_for_ever, after=dice.randrange(1, 120))
            told += [int(line.split()[0]) for line in lines]
            async with make_provider() as storage:
                assert list(by_revision(await history(storage))) == list(range(1, (await storage.info()).revision + 1))
        assert len(set(told)) == len(told), "a revision was given twice"

    async def test_a_cancelled_transaction_happens_wholly_or_not(self, provider: StorageProvider) -> None:
        """Cancelled: the transaction happens wholly or not at all, perhaps a moment later, but never after one that was
        sent later; a caller that cares sends another, and reads then."""

        async def look() -> None:
            await put(provider, b"later")
            before = (await provider.range(b"a", b"c")).records
            assert [record.key for record in before] in ([], [b"a", b"b"])
            await put(provider, b"later still")
            assert (await provider.range(b"a", b"c")).records == before
            await commit(provider, RecordDelete(b"a"), RecordDelete(b"b"))

        await cancel_at_every_await(lambda: provider.transact(puts((b"a", b""), (b"b", b""))), look)

    async def test_a_storage_whose_writer_was_cancelled_goes_on(self, provider: StorageProvider) -> None:
        """A cancelled call leaves nothing behind, or something that calling it again, ``list`` and ``remove`` put
        right; the provider stays usable."""

        async def write(number: int) -> None:
            with trio.move_on_after(0.001 * (number % 4)):
                await provider.transact(puts((b"%02d" % number, b"x" * 1000)))

        await side_by_side(write, 40)
        last = await put(provider, b"after")
        assert [change.revision for change in await history(provider)] == list(range(1, last + 1))

    async def test_a_second_server_is_refused_or_sees_the_same(
        self, make_provider: Callable[[], StorageProvider], provider: StorageProvider
    ) -> None:
        """Only one server at a time may write: where a storage cannot share, ``lifespan`` refuses a second one with
        LockedError that names the place and the id of the process that holds it."""
        await put(provider, b"a")
        refused = str(os.getpid())
        try:
            async with make_provider() as second:
                assert await second.get(b"a") == await provider.get(b"a")
        except LockedError as exc:
            refused = str(exc)
        assert str(os.getpid()) in refused
        assert await put(provider, b"b") == 2

    # Keys, values, limits

    async def test_keys_are_sorted_by_their_bytes(self, provider: StorageProvider) -> None:
        """Keys are compared as unsigned bytes."""
        keys = [b"b\x00", b"a\xff", b"b", b"\x00", b"a", b"\x80", b"", b"a\x00\x00", b"\xff\xff", b"\x7f"]
        for key in keys:
            await put(provider, key, key)
        assert [record.key for record in (await provider.range(b"", None)).records] == sorted(keys)
        assert [record.value for record in (await provider.range(b"a\x00", b"b")).records] == [b"a\x00\x00", b"a\xff"]

    async def test_the_largest_that_may_come_is_kept(self, provider: StorageProvider) -> None:
        """A key is at most ``MAX_KEY_BYTES`` long, a value ``MAX_VALUE_BYTES``, a transaction has at most
        ``MAX_OPERATIONS`` operations; the keyspace holds these limits, a storage need not check them."""
        key, value = b"\xff" * MAX_KEY_BYTES, bytes(range(256)) * (MAX_VALUE_BYTES // 256)
        await put(provider, key, value)
        await put(provider, key[:-1] + b"\x00", b"its neighbour")
        record = await provider.get(key)
        assert record is not None
        assert record.value == value
        assert await commit(provider, *(RecordPut(b"%04d" % number, b"") for number in range(MAX_OPERATIONS))) == 3
        assert len((await provider.range(b"0", b"1")).records) == MAX_OPERATIONS

    async def test_a_range_is_what_lies_between(self, provider: StorageProvider) -> None:
        """The records with ``start <= key < end`` (``end`` None: no upper bound), all from one state."""
        for key in (b"a", b"b", b"c"):
            await put(provider, key)
        for start, end, there in (
            (b"", None, b"abc"), (b"a", b"c", b"ab"), (b"b", None, b"bc"), (b"b", b"b\x00", b"b"),
            (b"a\x00", b"b", b""), (b"b", b"b", b""), (b"c", b"a", b""), (b"d", None, b""),
        ):  # fmt: skip
            page = await provider.range(start, end)
            assert b"".join(record.key for record in page.records) == there, (start, end)
            assert (page.more, page.revision) == (False, 3)

    async def test_a_limited_range_begins_at_its_lowest_key(self, provider: StorageProvider) -> None:
        """At most ``limit``, which is 1 or more, from the lowest key on; None: all of them."""
        await commit(provider, *(RecordPut(b"%03d" % number, b"") for number in range(300)))
        for limit in (1, 7, 299):
            page = await provider.range(b"", None, limit=limit)
            assert [record.key for record in page.records] == [b"%03d" % number for number in range(limit)]
        assert len((await provider.range(b"", None)).records) == 300

    async def test_a_limit_counts_what_is_there_at_the_revision(self, provider: StorageProvider) -> None:
        """At most ``limit``, which is 1 or more, from the lowest key on; None: all of them."""
        for key in (b"c", b"d", b"a", b"b"):
            await put(provider, key)
        await commit(provider, RecordDelete(b"a"), RecordDelete(b"c"))
        for revision, keys in ((None, b"bd"), (4, b"ab"), (2, b"cd")):
            page = await provider.range(b"", None, limit=2, revision=revision)
            assert b"".join(record.key for record in page.records) == keys
            assert page.more == (revision == 4)

    async def test_a_range_is_read_from_one_state(self, provider: StorageProvider) -> None:
        """The records with ``start <= key < end`` (``end`` None: no upper bound), all from one state."""
        keys = [b"%03d" % number for number in range(200)]
        await commit(provider, *(RecordPut(key, b"") for key in keys))
        seen: set[int] = set()

        async def read() -> None:
            while len(seen) < 5:
                page = await provider.range(b"0", b"2")
                assert {record.mod_revision for record in page.records} == {page.revision}
                assert len(page.records) == len(keys)
                seen.add(page.revision)
                await provider.wait_beyond(page.revision)
            nursery.cancel_scope.cancel()

        with trio.fail_after(LIMIT_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                while True:
                    await commit(provider, *(RecordPut(key, b"") for key in keys))

    async def test_a_page_says_whether_there_is_more(self, provider: StorageProvider) -> None:
        """Whether records follow that ``limit`` cut off."""
        await commit(provider, *(RecordPut(b"%d" % number, b"") for number in range(4)))
        assert [(await provider.range(b"", None, limit=limit)).more for limit in (1, 3, 4, 5)] == [
            True, True, False, False,
        ]  # fmt: skip
        assert not (await provider.range(b"0", b"2", limit=2)).more

    # Waiting

    async def test_waiters_are_woken_at_their_revision(self, provider: StorageProvider) -> None:
        """Wait until a transaction after ``revision`` is committed; return the store's last revision."""
        reached: list[tuple[int, int]] = []
        first, second = trio.Event(), trio.Event()

        async def wait(revision: int, event: trio.Event) -> None:
            reached.append((revision, await provider.wait_beyond(revision)))
            event.set()

        with trio.fail_after(LIMIT_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait, 1, second)
                nursery.start_soon(wait, 0, first)
                with trio.move_on_after(0.01) as scope:
                    await provider.wait_beyond(0)
                assert scope.cancelled_caught
                await put(provider, b"a")
                await first.wait()
                assert reached == [(0, 1)]
                await put(provider, b"a")
        assert reached[1:] == [(1, 2)]

    async def test_what_has_happened_is_not_waited_for(self, provider: StorageProvider) -> None:
        """At once where that has happened."""
        await put(provider, b"a")
        await put(provider, b"a")
        with trio.fail_after(LIMIT_SECONDS):
            assert await provider.wait_beyond(0) == 2
            assert await provider.wait_beyond(1) == 2

    # Expiry

    async def test_expiry_is_data(self, provider: StorageProvider) -> None:
        """``expires_at`` is stored and given back with the value it was written with; a storage never removes a record
        by itself."""
        await put(provider, b"old", b"1", expires_at=1.5)
        await put(provider, b"young", expires_at=4_102_444_800.000001)  # as fine as a clock's
        old, young = await provider.get(b"old"), await provider.get(b"young")
        assert old == Record(b"old", b"1", 1, 1, 1, 1.5)
        assert young == Record(b"young", b"", 2, 2, 1, 4_102_444_800.000001)
        assert (await provider.range(b"", None)).records == (old, young)
        assert [change.record for change in await history(provider)] == [old, young]

    async def test_a_put_replaces_the_expiry(self, provider: StorageProvider) -> None:
        """Write value and expiry as one; an earlier expiry of the key is replaced, also by None."""
        await put(provider, b"a", b"1", expires_at=5.0)
        await put(provider, b"a", b"2", expires_at=20.0)
        assert [record.expires_at for record in await provider.expiring(limit=9)] == [20.0]
        await put(provider, b"a", b"3")
        assert await provider.get(b"a") == Record(b"a", b"3", 1, 3, 3, None)
        assert list(await provider.expiring(limit=9)) == []

    async def test_the_soonest_expire_first(self, provider: StorageProvider) -> None:
        """The ``limit`` existing records that expire first, soonest first; records without expiry never."""
        await put(provider, b"later", expires_at=30.0)
        await put(provider, b"never")
        await put(provider, b"soon", expires_at=10.0)
        await put(provider, b"between", expires_at=20.0)
        await put(provider, b"deleted", expires_at=1.0)
        await delete(provider, b"deleted")
        assert [record.key for record in await provider.expiring(limit=10)] == [b"soon", b"between", b"later"]
        assert [record.expires_at for record in await provider.expiring(limit=2)] == [10.0, 20.0]

    async def test_all_that_was_told_is_there_after_opening_again(
        self, make_provider: Callable[[], StorageProvider]
    ) -> None:
        """The node opens a provider before it calls any other method, closes it when it ends, and may open it again."""
        async with make_provider() as storage:
            await put(storage, b"0")
            await delete(storage, b"0")
            for number in range(5):
                await put(storage, b"%d" % number, b"x", 50.0 + number)
            before = ((await storage.range(b"", None)).records, await history(storage), (await storage.info()).revision)
        async with make_provider() as storage:
            assert before == (
                (await storage.range(b"", None)).records,
                await history(storage),
                (await storage.info()).revision,
            )


KEYS_AT_ONCE = 3


def by_revision(changes: list[RecordChange]) -> dict[int, set[bytes]]:
    """The keys that each transaction changed."""
    found: dict[int, set[bytes]] = {}
    for change in changes:
        found.setdefault(change.revision, set()).add(change.key)
    return found


async def beside_a_writer(storage: StorageProvider, work: Callable[[int], Awaitable[None]], count: int) -> None:
    """Work side by side while another writes on, so that what comes at once also waits together for the disk."""

    async def write_on() -> None:
        while True:
            await put(storage, b"\xffnoise")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_on)
        await storage.wait_beyond((await storage.info()).revision)
        await side_by_side(work, count)
        nursery.cancel_scope.cancel()


async def write_for_ever(storage: StorageProvider, tell: Callable[[str], None]) -> None:
    """Eight tasks write three keys at a time, and tell revision and keys of each transaction that was acknowledged."""
    start = (await storage.info()).revision

    async def write(task: int) -> None:
        dice = random.Random(f"{start} {task}")
        while True:
            keys = [b"%d-%d" % (number, task) for number in dice.sample(range(9), KEYS_AT_ONCE)]
            revision = await commit(storage, *(RecordPut(key, dice.randbytes(dice.choice((5, 2000)))) for key in keys))
            tell(f"{revision} {' '.join(map(bytes.decode, keys))}")

    async with trio.open_nursery() as nursery:
        for task in range(8):
            nursery.start_soon(write, task)
