"""Fake storages with one bug each that breaks sentences of their contract; see ``test_mutants.py``."""

from __future__ import annotations

import copy
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import trio
from subjects import StorageSubject

from nanocloud.providers.storage import RecordPut
from nanocloud.testkit import FakeDisk, FakeStorage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from nanocloud.providers.storage import ChangePage, Committed, Record, RecordPage, Rejected, Transaction


class LosesAWrite(FakeStorage):
    """Of transactions that share a sync, the second is acknowledged and not done."""

    def _commit(self, group: Sequence[Any]) -> None:
        lost = [request for request in group[1:2] if not request.transaction.checks]
        super()._commit([request for request in group if request not in lost])
        for request in lost:
            request.outcome = group[0].outcome


class TestLosesAWrite(StorageSubject):
    fake = LosesAWrite
    breaks = (
        "What ``transact`` returned survives a crash of the process and of the machine.",
        "Numbers are never reused, also not after a crash.",
        "One that is refused changes nothing and disturbs no other.",
        "The page is complete up to this revision: reading goes on with ``after=through``.",
        "Transactions go on meanwhile.",
    )


class LosesAnUpdate(FakeStorage):
    """Of transactions that share a sync, all are checked before the first is done."""

    def _commit(self, group: Sequence[Any]) -> None:
        newest = {key: self.disk.get(key, None) for r in group for key in (c.key for c in r.transaction.checks)}
        for request in group:
            revisions = {key: record.mod_revision if record else 0 for key, record in newest.items()}
            if all(revisions[check.key] == check.mod_revision for check in request.transaction.checks):
                request.transaction = attrs.evolve(request.transaction, checks=())
        super()._commit(group)


class TestLosesAnUpdate(StorageSubject):
    fake = LosesAnUpdate
    breaks = (
        "Concurrent transactions have an order, the order of their revisions, and each one's checks are made against "
        "the state that all earlier ones left.",
        "All methods are safe to call concurrently from one trio thread.",
    )


class LazyDisk(FakeDisk):
    """Has on it, after a crash, what it had at every seventh transaction."""

    def __init__(self) -> None:
        super().__init__()
        self._applied, self._synced = 0, dict[str, Any]()

    def apply(self, transaction: Transaction) -> Committed | Rejected:
        if self._applied % 7 == 0:
            self._synced = copy.deepcopy({k: v for k, v in vars(self).items() if k not in ("_synced", "_holder")})
        self._applied += 1
        return super().apply(transaction)

    def crash(self, *, survivors: int = 0) -> None:
        crashes = self.crashes
        vars(self).update(copy.deepcopy(self._synced))
        self.crashes = crashes
        super().crash(survivors=survivors)


class TestAnswersBeforeItIsDurable(StorageSubject):
    fake_disk = LazyDisk
    breaks = (
        "What ``transact`` returned survives a crash of the process and of the machine.",
        "Numbers are never reused, also not after a crash.",
        "CompactedError: ``after`` lies before the compacted revision: some changes are forgotten.",
    )


class RepeatsARevision(FakeStorage):
    """Takes up counting, when it is opened, after the newest record that exists."""

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with super().lifespan():
            records = (await self.range(b"", None)).records
            self.disk._revision = max((record.mod_revision for record in records), default=0)
            yield


class TestRepeatsARevision(StorageSubject):
    fake = RepeatsARevision
    breaks = ("Numbers are never reused, also not after a crash.",)


class ListsByKey(FakeStorage):
    """Lists what expires in the order of keys."""

    async def expiring(self, *, limit: int) -> Sequence[Record]:
        return sorted(await super().expiring(limit=limit), key=lambda record: record.key)


class TestListsByKey(StorageSubject):
    fake = ListsByKey
    breaks = ("The ``limit`` existing records that expire first, soonest first; records without expiry never.",)


class CutsATransaction(FakeStorage):
    """Ends a page of changes wherever the limit is."""

    async def changes(self, start: bytes, end: bytes | None, *, after: int, limit: int) -> ChangePage:
        page = await super().changes(start, end, after=after, limit=limit)
        if len(page.changes) <= limit:
            return page
        return attrs.evolve(page, changes=page.changes[:limit], through=page.changes[limit - 1].revision)


class TestCutsATransaction(StorageSubject):
    fake = CutsATransaction
    breaks = (
        "A page holds whole transactions (as far as they touch the range) and ends after about ``limit`` changes, or "
        "earlier if they are large; it is empty only if nothing changed up to ``through``, which is then the store's "
        "last revision.",
    )


class TearsARange(FakeStorage):
    """Reads a range in two halves."""

    async def range(
        self, start: bytes, end: bytes | None, *, limit: int | None = None, revision: int | None = None
    ) -> RecordPage:
        first = await super().range(start, end, limit=limit, revision=revision)
        if revision is not None or len(first.records) < 100:
            return first
        await trio.sleep(0.02)
        second = await super().range(start, end, limit=limit)
        return attrs.evolve(first, records=first.records[:50] + second.records[50:])


class TestTearsARange(StorageSubject):
    fake = TearsARange
    breaks = ("The records with ``start <= key < end`` (``end`` None: no upper bound), all from one state.",)


class LimitsBeforeItLooks(FakeStorage):
    """Takes the lowest keys that there ever were, and then looks which exist."""

    async def range(
        self, start: bytes, end: bytes | None, *, limit: int | None = None, revision: int | None = None
    ) -> RecordPage:
        page = await super().range(start, end, revision=revision)
        keys = list(self.disk._between(start, end))[:limit]
        return attrs.evolve(
            page,
            records=tuple(record for record in page.records if record.key in keys),
            more=any(record.key not in keys for record in page.records),
        )


class TestLimitsBeforeItLooks(StorageSubject):
    fake = LimitsBeforeItLooks
    breaks = ("At most ``limit``, which is 1 or more, from the lowest key on; None: all of them.",)


class SkipsWhatComesMeanwhile(FakeStorage):
    """Reads changes first, and then how far they reach."""

    async def changes(self, start: bytes, end: bytes | None, *, after: int, limit: int) -> ChangePage:
        page = await super().changes(start, end, after=after, limit=limit)
        if page.through < self.disk.revision:
            return page
        await trio.sleep(0.02)
        return attrs.evolve(page, through=self.disk.revision)


class TestSkipsWhatComesMeanwhile(StorageSubject):
    fake = SkipsWhatComesMeanwhile
    breaks = ("The page is complete up to this revision: reading goes on with ``after=through``.",)


class ForgetsThatItCompacted(FakeStorage):
    """When it is opened again."""

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with super().lifespan():
            self.disk._compacted = 0
            yield


class TestForgetsThatItCompacted(StorageSubject):
    fake = ForgetsThatItCompacted
    breaks = ("CompactedError: ``after`` lies before the compacted revision: some changes are forgotten.",)


class RoundsTheExpiry(FakeStorage):
    """To a whole second."""

    async def transact(self, transaction: Transaction) -> Committed | Rejected:
        puts = (
            attrs.evolve(operation, expires_at=float(int(operation.expires_at)))
            if isinstance(operation, RecordPut) and operation.expires_at is not None
            else operation
            for operation in transaction.operations
        )
        return await super().transact(attrs.evolve(transaction, operations=tuple(puts)))


class TestRoundsTheExpiry(StorageSubject):
    fake = RoundsTheExpiry
    breaks = (
        "``expires_at`` is stored and given back with the value it was written with; a storage never removes a record "
        "by itself.",
        "Each transaction that changes something takes the next number, once; all its changes carry that number.",
    )
