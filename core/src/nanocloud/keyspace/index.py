"""Which entries belong to what: keys grouped by what their values say, so that nobody has to read all to find a few.

An index is made by reading everything below its prefix when it is first asked. From then on it is brought up to date
whenever it is asked, by the changes since: it has no task and costs nothing while nobody asks. An answer holds every
write that was committed before the question.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import trio

from nanocloud.errors import CompactedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from nanocloud.keyspace.entries import Change, Entry
    from nanocloud.keyspace.keys import Key
    from nanocloud.keyspace.keyspace import Keyspace
    from nanocloud.keyspace.watch import Watcher, WatchHub

_PAGE = 500


class Index:
    """Made by ``Keyspace.index``. ``groups_of`` names the groups that an entry is in; pure."""

    def __init__(
        self, keyspace: Keyspace, hub: WatchHub, prefix: Key, groups_of: Callable[[Entry], Iterable[str]]
    ) -> None:
        self._keyspace, self._hub, self._prefix, self._groups_of = keyspace, hub, prefix, groups_of
        self._members: defaultdict[str, set[Key]] = defaultdict(set)
        self._groups: dict[Key, frozenset[str]] = {}
        self._watcher: Watcher | None = None
        self._asking = trio.Lock()

    async def members(self, group: str) -> frozenset[Key]:
        """Keys of the entries that are in ``group`` now."""
        revision = self._keyspace.revision
        async with self._asking:
            while not await self._is_up_to(revision):
                pass
        return frozenset(self._members.get(group, ()))

    async def _is_up_to(self, revision: int) -> bool:
        """Read what changed since the last question, or all; False where that was forgotten meanwhile."""
        try:
            if self._watcher is None:
                self._watcher = await self._read_all()
            for change in await self._watcher.through(revision):
                self._apply(change)
        except CompactedError:
            if self._watcher is not None:
                self._hub.remove(self._prefix, self._watcher)
                self._watcher = None
            return False
        return True

    async def _read_all(self) -> Watcher:
        self._members.clear()
        self._groups.clear()
        after, revision = None, None
        while True:
            page = await self._keyspace.list(self._prefix, after=after, limit=_PAGE, revision=revision)
            for entry in page.entries:
                self._put(entry.key, frozenset(self._groups_of(entry)))
            if not page.more:
                return self._hub.add(self._prefix, page.revision)
            after, revision = page.entries[-1].key, page.revision

    def _apply(self, change: Change) -> None:
        self._put(change.key, frozenset(self._groups_of(change.entry)) if change.entry is not None else frozenset())

    def _put(self, key: Key, groups: frozenset[str]) -> None:
        before = self._groups.pop(key, frozenset())
        if groups:
            self._groups[key] = groups
        for group in before - groups:
            self._members[group].discard(key)
            if not self._members[group]:
                del self._members[group]
        for group in groups - before:
            self._members[group].add(key)
