"""The writer: one thread that commits; what comes while it syncs shares the next commit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

import attrs
import trio
from nanocloud.errors import CorruptError, FutureRevisionError

from nanocloud_storage_lmdb.change import Change
from nanocloud_storage_lmdb.database import Database

T = TypeVar("T")

_MOST_JOBS = 256
"""In one commit. Their pages are in memory until then."""


@attrs.define(eq=False)
class Job(Generic[T]):
    work: Callable[[Change], T]
    done: trio.Event = attrs.field(factory=trio.Event)
    result: T | None = None
    error: Exception | None = None

    def attempt(self, change: Change) -> None:
        """A job that fails by itself has read only, and the others go on. May be called again: see Database.write."""
        self.result = self.error = None
        try:
            self.result = self.work(change)
        except (CorruptError, FutureRevisionError) as exc:
            self.error = exc


class Writer:
    """Opened within a trio run, which it tells of each commit by ``committed``."""

    def __init__(self, database: Database, committed: Callable[[], None]) -> None:
        self._database, self._committed = database, committed
        self._trio = trio.lowlevel.current_trio_token()
        self._changed = threading.Condition()
        self._jobs: list[Job[object]] = []
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="storage-lmdb", daemon=True)
        self._thread.start()

    async def do(self, work: Callable[[Change], T]) -> T:
        """Have ``work`` done and made durable, after all that was asked for before.

        Cancelled, it is done all the same, at its place in the order.
        """
        job = Job[object](work)
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()
        await job.done.wait()
        if job.error is not None:
            raise job.error
        return job.result  # type: ignore[return-value]  # what this work returned

    def close(self) -> None:
        """Do what was asked for and end; blocks until then."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while jobs := self._next():
            try:
                self._database.write(partial(_attempt_all, jobs))
            except Exception as exc:  # noqa: BLE001 - whatever it is, nobody may wait for ever
                for job in jobs:
                    job.error = exc
            self._trio.run_sync_soon(self._tell, jobs)

    def _next(self) -> Sequence[Job[object]]:
        """What has come, once something has; nothing at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closing)
            jobs, self._jobs = self._jobs[:_MOST_JOBS], self._jobs[_MOST_JOBS:]
            return jobs

    def _tell(self, jobs: Sequence[Job[object]]) -> None:
        for job in jobs:
            job.done.set()
        self._committed()


def _attempt_all(jobs: Sequence[Job[object]], change: Change) -> None:
    for job in jobs:
        job.attempt(change)
