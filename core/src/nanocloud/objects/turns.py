"""Turns at a key: who reads, changes and writes one object in this process waits for whoever does so already.

Compare-and-set alone is right but not fair. Of sixteen writers of one object one gets through with each commit, the
fifteen others have worked for nothing, and now and then one of them loses a hundred times in a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from nanocloud.keyspace import Key


class Turns:
    """A lock for each key that somebody has or waits for; first come, first served."""

    def __init__(self) -> None:
        self._locks: dict[Key, trio.Lock] = {}

    async def acquire(self, key: Key) -> None:
        lock = self._locks.setdefault(key, trio.Lock())
        await lock.acquire()

    def release(self, key: Key) -> None:
        lock = self._locks[key]
        if not lock.statistics().tasks_waiting:
            del self._locks[key]
        lock.release()
