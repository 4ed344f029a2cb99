"""Watches: every change below a prefix after a revision, in order, without gaps, in bounded memory.

The hub follows the storage's history from one revision to the next and hands each change to the watchers of its
prefixes; the work for a change grows with its watchers, not with all. A watcher is *live* while it keeps up. One that
begins in the past, or whose queue is full because its reader is slow, *replays*: it reads the history itself, page by
page, until it has caught up with the hub. A replay that finds its place compacted ends with CompactedError.

Invariant: a live watcher has queued or handed out every change up to ``hub.revision``; a replaying one every change up
to its own ``_cursor``.
"""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Self

import trio

from nanocloud.errors import CompactedError, NanocloudError
from nanocloud.keyspace.entries import change_of
from nanocloud.keyspace.keys import decode, prefix_range

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nanocloud.keyspace.entries import Change
    from nanocloud.keyspace.keys import Key
    from nanocloud.providers.storage import RecordChange, StorageProvider

log = logging.getLogger(__name__)

_PAGE_CHANGES = 256
_QUEUE_CHANGES = 1024
_QUEUE_BYTES = 8 << 20
_RETRY_SECONDS = 1.0
_ROUTES = 1024


class Watcher:
    """An async iterator of changes, for one reader. Waiting for the next one can be cancelled and nothing is lost."""

    def __init__(self, hub: WatchHub, prefix: Key, after: int) -> None:
        self._hub, self._prefix = hub, prefix
        self._range = prefix_range(prefix)
        self._ready: deque[Change] = deque()  # the reader's, up to _cursor
        self._queue: deque[Change] = deque()  # the hub's, after _cursor; only while live
        self._queue_bytes = 0
        self._cursor = after
        self._live = after >= hub.revision
        self._wake = trio.Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        """The next change.

        Raises:
            CompactedError: the reader was so slow that what comes next is forgotten: list again.
        """
        if not self._ready:
            await self._fill()
        return self._ready.popleft()

    def progress(self) -> int:
        """The revision up to which the reader has been given everything; never goes back. For bookmarks."""
        if self._ready:
            return self._ready[0].revision - 1
        if self._queue:
            return self._queue[0].revision - 1
        return max(self._cursor, self._hub.revision) if self._live else self._cursor

    async def _fill(self) -> None:
        await trio.lowlevel.checkpoint()
        while not self._ready:
            if self._live and not self._queue:
                self._wake = trio.Event()
                await self._wake.wait()
            else:
                await self._advance()

    async def through(self, revision: int) -> list[Change]:
        """All that was not given out yet, at least up to ``revision``: for a reader that only looks now and then.

        Raises:
            CompactedError: as ``__anext__``.
        """
        await self._hub.reached(revision)
        while self._queue or not self._live:
            await self._advance()
        given = list(self._ready)
        self._ready.clear()
        return given

    async def _advance(self) -> None:
        """Make ready what is queued, or a page of the history."""
        if self._queue:
            self._cursor = self._queue[-1].revision
            self._ready.extend(self._queue)
            self._queue.clear()
            self._queue_bytes = 0
        else:
            page = await self._hub.storage.changes(*self._range, after=self._cursor, limit=_PAGE_CHANGES)
            self._ready.extend(map(change_of, page.changes))
            self._cursor = page.through
            self._live = page.through >= self._hub.revision

    def offer(self, changes: list[Change]) -> None:
        """The hub's side: what changed since the last offer."""
        if not self._live:
            return  # the replay will read them
        if changes[0].revision <= self._cursor:  # the replay has read a part
            changes = [change for change in changes if change.revision > self._cursor]
        self._queue.extend(changes)
        self._queue_bytes += sum(map(_size_bytes, changes))
        if len(self._queue) > _QUEUE_CHANGES or self._queue_bytes > _QUEUE_BYTES:
            self.fall_behind()
        self._wake.set()

    def fall_behind(self) -> None:
        """Drop what is queued and read it again from the storage when the reader comes."""
        self._queue.clear()
        self._queue_bytes = 0
        self._live = False
        self._wake.set()


class WatchHub:
    """Reads the history once for all watchers."""

    def __init__(self, storage: StorageProvider, revision: int, on_expiry: Callable[[float], None]) -> None:
        self.storage, self.revision = storage, revision
        self._on_expiry = on_expiry
        self._watchers: defaultdict[Key, set[Watcher]] = defaultdict(set)
        # Keys that changed lately, and who follows each: what is written once is soon written again.
        self._routes: dict[bytes, tuple[Key, list[Watcher]]] = {}
        self._moved = trio.Event()

    def add(self, prefix: Key, after: int) -> Watcher:
        watcher = Watcher(self, prefix, after)
        self._watchers[prefix].add(watcher)
        self._routes.clear()
        return watcher

    def remove(self, prefix: Key, watcher: Watcher) -> None:
        self._watchers[prefix].discard(watcher)
        if not self._watchers[prefix]:
            del self._watchers[prefix]
        self._routes.clear()

    async def reached(self, revision: int) -> None:
        """Wait until every watcher that keeps up has what ``revision`` and all before it changed."""
        while self.revision < revision:
            await self._moved.wait()

    async def run(self) -> None:
        while True:
            try:
                await self._advance()
            except NanocloudError as exc:
                log.warning("watchers wait, next try in %s s: %s", _RETRY_SECONDS, exc)
                await trio.sleep(_RETRY_SECONDS)

    async def _advance(self) -> None:
        """Wait for what comes after ``revision``, and hand it out."""
        newest = await self.storage.wait_beyond(self.revision)
        try:
            page = await self.storage.changes(b"", None, after=self.revision, limit=_PAGE_CHANGES)
        except CompactedError:
            # Another server of a shared storage compacted what this one has not read yet. The watchers find out
            # for themselves, each at its own place.
            for watchers in self._watchers.values():
                for watcher in watchers:
                    watcher.fall_behind()
            self._move(newest)
        else:
            self._publish(page.changes)
            self._move(page.through)

    def _move(self, revision: int) -> None:
        self.revision = revision
        self._moved.set()
        self._moved = trio.Event()

    def _publish(self, changes: Sequence[RecordChange]) -> None:
        offers: defaultdict[Watcher, list[Change]] = defaultdict(list)
        for record_change in changes:
            if record_change.record is not None and record_change.record.expires_at is not None:
                self._on_expiry(record_change.record.expires_at)
            key, watchers = self._routes.get(record_change.key) or self._route(record_change.key)
            if watchers:
                change = change_of(record_change, key)
                for watcher in watchers:
                    offers[watcher].append(change)
        for watcher, offered in offers.items():
            watcher.offer(offered)

    def _route(self, encoded: bytes) -> tuple[Key, list[Watcher]]:
        if len(self._routes) >= _ROUTES:
            self._routes.clear()
        key = decode(encoded)
        prefixes = (key[:length] for length in range(len(key) + 1))
        route = key, [watcher for prefix in prefixes for watcher in self._watchers.get(prefix, ())]
        self._routes[encoded] = route
        return route


def _size_bytes(change: Change) -> int:
    entry, previous = change.entry, change.previous
    return (len(entry.value) if entry is not None else 0) + (len(previous.value) if previous is not None else 0)
