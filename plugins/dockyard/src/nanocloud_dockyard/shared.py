"""Work that several callers want at once is done once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import trio

from nanocloud.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

T = TypeVar("T")


class _Job(Generic[T]):
    def __init__(self, way: Hashable) -> None:
        self.way = way
        self.done = trio.Event()
        self.scope = trio.CancelScope()
        self.waiters = 0
        self.result: T | None = None
        self.error: Exception = ImageError("the work was given up: the image provider is closing")
        self.succeeded = False


class SharedWork(Generic[T]):
    """Runs work by key in ``nursery``: callers that come while it runs wait for the same result.

    A caller that is cancelled leaves the work to the others; when the last one is gone it is cancelled. A failure
    belongs to those who wanted the work done in the same way: somebody else's bad source is no reason to fail.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._jobs: dict[Hashable, _Job[T]] = {}

    async def run(self, key: Hashable, way: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """The result of ``work``, or of what another caller started for ``key``.

        Args:
            way: where the result comes from; equal for callers whose ``work`` would fail alike.
        """
        while True:
            job = self._jobs.get(key) or self._start(key, way, work)
            await self._wait(key, job)
            if job.succeeded:
                return job.result  # type: ignore[return-value]
            if job.way == way:
                raise job.error

    def _start(self, key: Hashable, way: Hashable, work: Callable[[], Awaitable[T]]) -> _Job[T]:
        job = self._jobs[key] = _Job(way)
        self._nursery.start_soon(self._run, key, job, work)
        return job

    async def _wait(self, key: Hashable, job: _Job[T]) -> None:
        job.waiters += 1
        try:
            await job.done.wait()
        finally:
            job.waiters -= 1
            if not job.waiters and not job.done.is_set():
                self._forget(key, job)
                job.scope.cancel()
                with trio.CancelScope(shield=True):  # what it leaves must be gone before we are
                    await job.done.wait()

    async def _run(self, key: Hashable, job: _Job[T], work: Callable[[], Awaitable[T]]) -> None:
        try:
            with job.scope:
                job.result = await work()
                job.succeeded = True
        except Exception as exc:  # handed to every caller
            job.error = exc
        finally:
            self._forget(key, job)
            job.done.set()

    def _forget(self, key: Hashable, job: _Job[T]) -> None:
        if self._jobs.get(key) is job:
            del self._jobs[key]
