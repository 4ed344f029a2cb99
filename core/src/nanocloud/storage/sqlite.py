"""The built-in storage provider: SQLite in a folder, for one server.

Writes go through one thread (`_writer.py`). Reads that are small run on the spot, on a read-only connection of the
trio thread: they take about 10 us, an eighth of a hop to a thread. Larger ones go to threads with connections of their
own. What was read or written last is kept (`_cache.py`), and so are the last changes (`_recent.py`). The folder holds
``lock``, ``keyspace.db`` and, while open, SQLite's ``-wal`` and ``-shm``.
"""

from __future__ import annotations

import heapq
import itertools
import sqlite3
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import trio

from nanocloud.errors import FutureRevisionError
from nanocloud.providers.storage import Committed, RecordPut, StorageProvider
from nanocloud.storage import _read
from nanocloud.storage._cache import RecordCache
from nanocloud.storage._lock import locked_folder
from nanocloud.storage._recent import RecentChanges
from nanocloud.storage._schema import failure, open_reader, open_writer
from nanocloud.storage._writer import Compaction, Request, Writer, again

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from nanocloud.providers.storage import (
        ChangePage,
        Record,
        RecordChange,
        RecordPage,
        Rejected,
        StorageInfo,
        Transaction,
    )

T = TypeVar("T")
P = ParamSpec("P")

_SMALL_RECORDS = 64
_SMALL_HISTORY = 256
_READER_THREADS = 4


class SqliteStorage(StorageProvider):
    """See the module. ``max_size_bytes`` bounds the file; at the bound writes fail until something is compacted."""

    def __init__(self, folder: Path, *, max_size_bytes: int = 8 << 30) -> None:
        self._folder, self._max_size_bytes = folder, max_size_bytes
        self._database = folder / "keyspace.db"

    @property
    def name(self) -> str:
        return "sqlite"

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Lock and open the folder.

        Raises:
            LockedError: another server uses it; names the folder and the process.
            CorruptError, ProviderError, UnavailableError: the file cannot be used; says why.
        """
        with locked_folder(self._folder):
            connection = await trio.to_thread.run_sync(self._open)
            self._idle_readers: list[sqlite3.Connection] = []
            self._threads = trio.CapacityLimiter(_READER_THREADS)
            self._cache = RecordCache()
            self._waiters: list[tuple[int, int, trio.Event]] = []
            self._waiter_numbers = itertools.count()
            try:
                self._reader = open_reader(self._database)
                self._revision = self._inline(_read.info).revision
                self._recent = RecentChanges(self._revision)
                self._writer = Writer(connection, self._database, self._revision, self._committed)
            except BaseException as exc:
                connection.close()
                if isinstance(exc, sqlite3.Error):
                    raise failure(exc, self._database) from exc
                raise
            self._writer.start()
            try:
                yield
            finally:
                for reader in (self._reader, *self._idle_readers):
                    reader.close()  # before the writer, whose close then is the last and empties the journal
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(self._writer.close)

    def _open(self) -> sqlite3.Connection:
        return open_writer(self._database, max_size_bytes=self._max_size_bytes)

    async def transact(self, transaction: Transaction) -> Committed | Rejected:
        request = Request(transaction, _size_bytes(transaction), self._ended, trio.lowlevel.current_task())
        self._writer.submit(request)
        for operation in transaction.operations:
            self._cache.begin_writing(operation.key)

        def give_up(_: object) -> trio.lowlevel.Abort:
            request.waiter = None
            self._writer.withdraw(request)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(give_up)
        if request.error is not None:
            raise again(request.error)
        assert request.outcome is not None
        return request.outcome

    def _ended(self, request: Request) -> None:
        operations, outcome = request.transaction.operations, request.outcome
        records = outcome.records if isinstance(outcome, Committed) else (None,) * len(operations)
        for operation, record in zip(operations, records, strict=True):
            self._cache.end_writing(operation.key, record)

    async def get(self, key: bytes, *, revision: int | None = None) -> Record | None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if revision is None:
            if (record := self._cache.get(key)) is None and (record := self._inline(_read.get, key)) is not None:
                self._cache.add(record)
            return record
        if self._revision - revision <= _SMALL_HISTORY:
            return self._inline(_read.get_at, key, revision)
        return await self._in_thread(_read.get_at, key, revision)

    async def range(
        self, start: bytes, end: bytes | None, *, limit: int | None = None, revision: int | None = None
    ) -> RecordPage:
        await trio.lowlevel.checkpoint_if_cancelled()
        if revision is None or self._revision - revision <= _SMALL_HISTORY:
            # Nobody knows beforehand how much is there: a look that finds too much costs a fraction of a hop.
            wanted = _SMALL_RECORDS if limit is None else min(limit, _SMALL_RECORDS)
            page = self._inline(_read.read_range, start, end, wanted, revision)
            if not page.more or wanted == limit:
                return page
        return await self._in_thread(_read.read_range, start, end, limit, revision)

    async def changes(self, start: bytes, end: bytes | None, *, after: int, limit: int) -> ChangePage:
        await trio.lowlevel.checkpoint_if_cancelled()
        if (page := self._recent.page(start, end, after, limit)) is not None:
            return page
        if self._revision - after <= _SMALL_HISTORY:
            return self._inline(_read.changes, start, end, after, limit)
        return await self._in_thread(_read.changes, start, end, after, limit)

    async def wait_beyond(self, revision: int) -> int:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._revision <= revision:
            waiter = (revision, next(self._waiter_numbers), trio.Event())
            heapq.heappush(self._waiters, waiter)
            try:
                await waiter[2].wait()
            except trio.Cancelled:
                if waiter in self._waiters:  # a commit may have come after the cancellation, and taken it out
                    self._waiters.remove(waiter)
                    heapq.heapify(self._waiters)
                raise
        return self._revision

    async def expiring(self, *, limit: int) -> Sequence[Record]:
        await trio.lowlevel.checkpoint_if_cancelled()
        if limit <= _SMALL_RECORDS:
            return self._inline(_read.expiring, limit)
        return await self._in_thread(_read.expiring, limit)

    async def compact(self, revision: int) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        # From the file: a read may have shown a commit that the writer has not reported here yet.
        current = self._inline(_read.info).revision
        if revision > current:
            raise FutureRevisionError(requested=revision, current=current)
        self._recent.forget(revision)
        compaction = Compaction(revision)
        self._writer.submit(compaction)
        await compaction.done.wait()
        if compaction.error is not None:
            raise again(compaction.error)

    async def info(self) -> StorageInfo:
        await trio.lowlevel.checkpoint_if_cancelled()
        return self._inline(_read.info)

    def _committed(self, revision: int, transactions: Sequence[Sequence[RecordChange]]) -> None:
        self._revision = revision
        for changes in transactions:
            self._recent.add(changes)
        while self._waiters and self._waiters[0][0] < revision:
            heapq.heappop(self._waiters)[2].set()

    def _inline(self, read: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(self._reader, *args, **kwargs)
        except sqlite3.Error as exc:
            raise failure(exc, self._database) from exc

    async def _in_thread(
        self, read: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        def run() -> T:
            # pop and append are atomic; the limiter bounds how many there can be.
            try:
                reader = self._idle_readers.pop()
            except IndexError:
                reader = open_reader(self._database)
            try:
                return read(reader, *args, **kwargs)
            except sqlite3.Error as exc:
                raise failure(exc, self._database) from exc
            finally:
                self._idle_readers.append(reader)

        return await trio.to_thread.run_sync(run, limiter=self._threads)


def _size_bytes(transaction: Transaction) -> int:
    size_bytes = 0
    for operation in transaction.operations:
        size_bytes += len(operation.key)
        if isinstance(operation, RecordPut):
            size_bytes += len(operation.value)
    return size_bytes
