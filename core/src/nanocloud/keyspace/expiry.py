"""The worker that ends leases: it sleeps until the next key expires, then deletes what is due.

Each delete compares the mod revision it saw, so a key that was renewed meanwhile stays. Records carry their expiry,
so nothing is kept in memory but the next moment, and a restart finds everything that expired while nobody ran.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import trio

from nanocloud.errors import NanocloudError
from nanocloud.providers.storage import RecordCheck, RecordDelete, Transaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from nanocloud.providers.storage import Record, StorageProvider

log = logging.getLogger(__name__)

_BATCH = 64
_EARLY_SECONDS = 0.001  # less than the clock's resolution times the arithmetic on it can lose
# Sleeping goes by a clock that does not see the wall clock being set: look again now and then while a lease runs.
_LONGEST_SLEEP_SECONDS = 600.0
_RETRY_SECONDS = (1.0, 5.0, 30.0)


class ExpiryWorker:
    """``clock`` gives seconds since the epoch."""

    def __init__(self, storage: StorageProvider, clock: Callable[[], float]) -> None:
        self._storage, self._clock = storage, clock
        self._next = math.inf
        self._wake = trio.Event()

    def hint(self, expires_at: float) -> None:
        """A record with this expiry was written."""
        if expires_at < self._next:
            self._wake.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Started once everything that is due at the beginning is gone, or could not be removed yet."""
        failures = 0
        started = False
        while True:
            # Any expiry that is hinted at from here on wakes the worker again, so none falls between read and sleep.
            self._wake, self._next = trio.Event(), math.inf
            try:
                self._next = await self._delete_due()
                failures = 0
                delay = max(self._next - self._clock(), _EARLY_SECONDS)
            except NanocloudError as exc:
                delay = _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)]
                failures += 1
                log.warning("expired keys stay for now, next try in %s s: %s", delay, exc)
            if not started:
                started = True
                task_status.started()
            with trio.move_on_after(min(delay, _LONGEST_SLEEP_SECONDS) if delay < math.inf else math.inf):
                await self._wake.wait()

    async def _delete_due(self) -> float:
        """Delete until nothing is due; return when the next key is."""
        while True:
            records = await self._storage.expiring(limit=_BATCH)
            now = self._clock() + _EARLY_SECONDS
            due = [record for record in records if _expiry(record) <= now]
            if not due:
                return _expiry(records[0]) if records else math.inf
            for error in await self._delete_all(due):
                raise error

    async def _delete_all(self, records: list[Record]) -> list[NanocloudError]:
        """Side by side, so that they share commits."""
        errors: list[NanocloudError] = []

        async def delete(record: Record) -> None:
            check = RecordCheck(record.key, record.mod_revision)
            try:
                # Rejected means written since: then its own expiry counts.
                await self._storage.transact(Transaction((check,), (RecordDelete(record.key),)))
            except NanocloudError as exc:
                errors.append(exc)

        async with trio.open_nursery() as nursery:
            for record in records:
                nursery.start_soon(delete, record)
        return errors


def _expiry(record: Record) -> float:
    return math.inf if record.expires_at is None else record.expires_at
