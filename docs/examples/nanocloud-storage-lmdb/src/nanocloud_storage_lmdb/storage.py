"""The provider: reads from LMDB's map, writes through the writer, compacts in small steps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio
from nanocloud.files import private_folder
from nanocloud.providers.storage import (
    ChangePage,
    Committed,
    Record,
    RecordPage,
    Rejected,
    StorageInfo,
    StorageProvider,
    Transaction,
)

from nanocloud_storage_lmdb.change import Change
from nanocloud_storage_lmdb.database import Database
from nanocloud_storage_lmdb.lock import locked
from nanocloud_storage_lmdb.view import View
from nanocloud_storage_lmdb.writer import Writer

T = TypeVar("T")

_READERS = 8
_SWEEP = 500
"""Changes that one step of compaction forgets; transactions come in between."""


class LmdbStorage(StorageProvider):
    """``folder`` holds ``store.mdb``, LMDB's table of readers beside it, and the lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._database: Database
        self._writer: Writer
        self._readers: trio.CapacityLimiter
        self._moved: trio.Event

    @property
    def name(self) -> str:
        return "lmdb"

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        with locked(private_folder(self._folder)):
            self._database = await trio.to_thread.run_sync(Database.open, self._folder / "store.mdb")
            self._writer = Writer(self._database, self._committed)
            self._readers, self._moved = trio.CapacityLimiter(_READERS), trio.Event()
            try:
                yield
            finally:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(self._close)

    async def transact(self, transaction: Transaction) -> Committed | Rejected:
        return await self._writer.do(partial(Change.transact, transaction=transaction))

    async def get(self, key: bytes, *, revision: int | None = None) -> Record | None:
        return await self._glance(lambda view: view.get(key, revision))

    async def range(
        self, start: bytes, end: bytes | None, *, limit: int | None = None, revision: int | None = None
    ) -> RecordPage:
        return await self._read(lambda view: view.range(start, end, limit, revision))

    async def changes(self, start: bytes, end: bytes | None, *, after: int, limit: int) -> ChangePage:
        return await self._read(lambda view: view.changes(start, end, after, limit))

    async def wait_beyond(self, revision: int) -> int:
        while (reached := await self._glance(lambda view: view.revision)) <= revision:
            await self._moved.wait()
        return reached

    async def expiring(self, *, limit: int) -> Sequence[Record]:
        return await self._read(lambda view: view.expiring(limit))

    async def compact(self, revision: int) -> None:
        await self._writer.do(partial(Change.mark_compacted, revision=revision))
        while await self._writer.do(partial(Change.sweep, limit=_SWEEP)):
            pass

    async def info(self) -> StorageInfo:
        return await self._glance(View.info)

    async def _glance(self, look: Callable[[View], T]) -> T:
        """What takes microseconds: a thread would take longer to reach."""
        await trio.lowlevel.checkpoint()
        with self._database.view(patient=False) as view:
            return look(view)

    async def _read(self, look: Callable[[View], T]) -> T:
        """What may take long, beside trio's thread."""

        def read() -> T:
            with self._database.view() as view:
                return look(view)

        return await trio.to_thread.run_sync(read, limiter=self._readers)

    def _committed(self) -> None:
        self._moved.set()
        self._moved = trio.Event()

    def _close(self) -> None:
        self._writer.close()
        self._database.close()
