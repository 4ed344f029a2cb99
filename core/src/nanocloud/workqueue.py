"""A work queue of keys: each key is handled by one worker at a time, and never forgotten.

Adding a key that waits does nothing; adding one that is being handled makes it run once more afterwards. A handler
that raises is run again after a back-off that doubles per failure in a row; success forgets the failures.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import structlog
import trio

from nanocloud.observability.metrics import reconcile_seconds

K = TypeVar("K", bound=Hashable)
log = structlog.get_logger("workqueue")

FIRST_BACKOFF_SECONDS, LAST_BACKOFF_SECONDS = 0.5, 60.0


class WorkQueue(Generic[K]):
    """Feed it with ``add``; ``run`` hands the keys to the handler."""

    def __init__(self, name: str, *, last_backoff_seconds: float = LAST_BACKOFF_SECONDS) -> None:
        self._name, self._last_backoff = name, last_backoff_seconds
        self._send, self._receive = trio.open_memory_channel[K](float("inf"))
        self._waiting: set[K] = set()
        self._running: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._delays: dict[K, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None

    def add(self, key: K) -> None:
        """Ask for the key to be handled soon; cheap, never blocks."""
        if key in self._running:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._send.send_nowait(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Ask for the key after a delay; a later call for the same key replaces the earlier one."""
        assert self._nursery is not None, "run() first"
        if earlier := self._delays.pop(key, None):
            earlier.cancel()
        scope = self._delays[key] = trio.CancelScope()
        self._nursery.start_soon(self._delayed, key, seconds, scope)

    async def _delayed(self, key: K, seconds: float, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(seconds)
            self.add(key)
        if self._delays.get(key) is scope:
            del self._delays[key]

    async def run(self, handler: Callable[[K], Awaitable[None]], *, workers: int = 4) -> None:
        """Handle keys until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for _ in range(workers):
                nursery.start_soon(self._work, handler)

    async def _work(self, handler: Callable[[K], Awaitable[None]]) -> None:
        async for key in self._receive.clone():
            self._waiting.discard(key)
            self._running.add(key)
            try:
                with reconcile_seconds.labels(self._name).time():
                    await handler(key)
            except Exception as exc:
                failures = self._failures[key] = self._failures.get(key, 0) + 1
                # The power is bounded, too: after a thousand failures in a row it would be no float any more.
                delay = min(FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 32), self._last_backoff)
                log.warning("reconcile failed", queue=self._name, key=key, retry_seconds=delay, error=repr(exc))
                self.add_after(key, delay)
            else:
                self._failures.pop(key, None)
            finally:
                self._running.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)
