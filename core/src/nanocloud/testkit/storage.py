"""FakeStorage: the storage contract in memory, without threads, on a disk that tells what was durable.

Commits come in groups, as on a real disk: while one group is synced the next gathers. There is no task that writes.
Whoever finds the disk idle syncs for all that wait, and then wakes them. What is taken up for a sync happens, whatever
becomes of the callers; what waits yet is withdrawn by a cancellation. A reader sees what was synced, never more.

``storage.calls`` knows one method more than the contract: ``sync``. ``calls.delay("sync", 0.005)`` is a slow disk,
``calls.fail("sync", UnavailableError(...))`` one whose sync fails: as nobody knows what is on it then, every later
write is refused until the storage is opened anew.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from nanocloud.errors import NanocloudError, UnavailableError
from nanocloud.providers.storage import StorageProvider
from nanocloud.testkit.calls import Calls
from nanocloud.testkit.disk import FakeDisk, shown_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from nanocloud.providers.storage import (
        ChangePage,
        Committed,
        Record,
        RecordPage,
        Rejected,
        StorageInfo,
        Transaction,
    )

_GROUP_TRANSACTIONS = 256


@attrs.define(eq=False)
class _Request:
    transaction: Transaction
    done: trio.Event = attrs.field(factory=trio.Event)
    outcome: Committed | Rejected | None = None


class FakeStorage(StorageProvider):
    """See the module. Without ``disk`` it has one of its own, which ends with it."""

    def __init__(self, disk: FakeDisk | None = None, *, sync_seconds: float = 0.0) -> None:
        self.disk = disk or FakeDisk()
        self.calls = Calls()
        self.calls.delay("sync", sync_seconds)
        self._waiting: list[_Request] = []
        self._idle = trio.Event()
        self._syncing = False
        self._moved = trio.Event()
        self._opened_after: int | None = None  # so many crashes of the disk
        self._broken = ""

    @property
    def name(self) -> str:
        return "fake"

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Raises LockedError where another storage has the disk."""
        self.disk.hold(self)
        self._opened_after, self._broken = self.disk.crashes, ""
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                await self._finish()
            self._opened_after = None
            self.disk.let_go(self)

    async def _finish(self) -> None:
        """What was submitted is done before the storage is closed."""
        try:
            while self._is_alive and (self._waiting or self._syncing):
                await self._turn()
        except UnavailableError:
            pass  # told to those who wait
        self._wake()

    # ---- writing -----------------------------------------------------------------------------------------------------

    async def transact(self, transaction: Transaction) -> Committed | Rejected:
        await self._enter("transact", " ".join(shown_key(operation.key) for operation in transaction.operations))
        request = _Request(transaction)
        self._waiting.append(request)
        try:
            while request.outcome is None:
                self._require_open()
                if self._broken:
                    raise UnavailableError(self._broken)
                await self._turn()
        finally:
            if request in self._waiting:
                self._waiting.remove(request)
        return request.outcome

    async def _turn(self) -> None:
        """Sync the next group, or wait until the one that is being synced is done."""
        if self._syncing:
            await self._idle.wait()
            return
        group, self._waiting = self._waiting[:_GROUP_TRANSACTIONS], self._waiting[_GROUP_TRANSACTIONS:]
        self._syncing = True
        self.disk.in_flight = [request.transaction for request in group]
        try:
            await self.calls.enter("sync", "")
        except NanocloudError as exc:
            self._broken = f"the fake disk failed: {exc}"
            raise
        except trio.Cancelled:
            self._commit(group)  # it has begun, so it ends
            raise
        else:
            self._commit(group)
        finally:
            if self._is_alive:
                self.disk.in_flight = ()
            self._syncing = False
            self._wake()

    def _commit(self, group: Sequence[_Request]) -> None:
        if not self._is_alive:
            return
        before = self.disk.revision
        for request in group:
            request.outcome = self.disk.apply(request.transaction)
        if self.disk.revision != before:
            self._moved.set()
            self._moved = trio.Event()

    def _wake(self) -> None:
        self._idle.set()
        self._idle = trio.Event()

    async def compact(self, revision: int) -> None:
        await self._enter("compact", str(revision))
        self.disk.compact(revision)

    # ---- reading -----------------------------------------------------------------------------------------------------

    async def get(self, key: bytes, *, revision: int | None = None) -> Record | None:
        await self._enter("get", shown_key(key))
        return self.disk.get(key, revision)

    async def range(
        self, start: bytes, end: bytes | None, *, limit: int | None = None, revision: int | None = None
    ) -> RecordPage:
        await self._enter("range", shown_key(start))
        return self.disk.range(start, end, limit, revision)

    async def changes(self, start: bytes, end: bytes | None, *, after: int, limit: int) -> ChangePage:
        await self._enter("changes", shown_key(start))
        return self.disk.changes(start, end, after, limit)

    async def wait_beyond(self, revision: int) -> int:
        await self._enter("wait_beyond", str(revision))
        while self.disk.revision <= revision:
            await self._moved.wait()
        return self.disk.revision

    async def expiring(self, *, limit: int) -> Sequence[Record]:
        await self._enter("expiring", str(limit))
        return self.disk.expiring(limit)

    async def info(self) -> StorageInfo:
        await self._enter("info", "")
        return self.disk.info()

    async def _enter(self, method: str, subject: str) -> None:
        self._require_open()
        await self.calls.enter(method, subject)
        self._require_open()

    def _require_open(self) -> None:
        if self._opened_after is None:
            raise UnavailableError("the fake storage is closed")
        if not self._is_alive:
            raise UnavailableError("the fake disk crashed", hint="open a new storage on it")

    @property
    def _is_alive(self) -> bool:
        return self._opened_after == self.disk.crashes
