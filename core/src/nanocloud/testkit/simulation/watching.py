"""Watchers that come and go: each folds the events of one kind into a state and remembers where it stopped.

A watcher outlives servers: it goes on at the revision of its last event, on the next server too. Its folded state must
equal a list at that very revision, its revisions only grow, and nothing is told of an object that it does not fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from nanocloud.client.api import ApiError
from nanocloud.models.meta import Object, name_of, revision_of, uid_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from nanocloud.models.kinds import ResourceKind
    from nanocloud.testkit.api import ApiClient, Event

_GONE, _LONGEST_SECONDS, _LONGEST_PAUSE_SECONDS = 410, 60.0, 30.0


class Follower:
    """Follows one kind in the namespace ``default``; ``complain`` is told of every broken promise."""

    def __init__(self, kind: ResourceKind, rng: Random, complain: Callable[[str], None]) -> None:
        self.kind, self._rng, self._complain = kind, rng, complain
        self.events = 0
        self._state: dict[str, Object] = {}
        self._revision = 0

    async def follow(self, api: ApiClient) -> None:
        """Watch, leave, compare, come back, until cancelled."""
        while True:
            try:
                if not self._revision:
                    await self._list(api)
                with trio.move_on_after(self._rng.uniform(1, _LONGEST_SECONDS)):
                    await self._watch(api)
                await self.compare(api)
            except ApiError as exc:
                if exc.code == _GONE:
                    self._revision = 0
            await trio.sleep(self._rng.uniform(0, _LONGEST_PAUSE_SECONDS))

    async def catch_up(self, api: ApiClient) -> None:
        """Follow up to the present, and compare."""
        if not self._revision:
            return
        try:
            with trio.move_on_after(1):
                await self._watch(api)
            await self.compare(api)
        except ApiError as exc:
            if exc.code != _GONE:
                self._complain(f"{self.kind.plural}: watching from {self._revision} is refused: {exc}")

    async def _list(self, api: ApiClient) -> None:
        page = await api.list(self.kind)
        self._state = {name_of(obj): _content(obj) for obj in page.items}
        self._revision = int(page.resource_version)

    async def _watch(self, api: ApiClient) -> None:
        query = {"allowWatchBookmarks": "true"} if self._rng.random() < 0.5 else {}
        async with api.watch(self.kind, after=str(self._revision), query=query) as events:
            async for event in events:
                self._fold(event)

    def _fold(self, event: Event) -> None:
        self.events += 1
        revision, name = revision_of(event.object), name_of(event.object)
        if event.type == "BOOKMARK":
            if revision < self._revision:
                self._complain(f"{self.kind.plural}: a bookmark goes back from {self._revision} to {revision}")
            self._revision = revision
            return
        if revision <= self._revision:
            self._complain(f"{self.kind.plural}: {event.type} {name} at {revision} after {self._revision}")
        self._revision = revision
        known = self._state.get(name)
        if (event.type == "ADDED") != (known is None):
            self._complain(f"{self.kind.plural}: {event.type} {name}, which was {'there' if known else 'not there'}")
        elif known is not None and uid_of(known) != uid_of(event.object):
            self._complain(f"{self.kind.plural}: {event.type} {name} is of another object than the one before")
        if event.type == "DELETED":
            self._state.pop(name, None)
        else:
            self._state[name] = _content(event.object)

    async def compare(self, api: ApiClient) -> None:
        """The folded state against a list at its revision. Raises ApiError where there is none to be had."""
        query = {"resourceVersion": str(self._revision), "resourceVersionMatch": "Exact"}
        page = await api.list(self.kind, query=query)
        listed = {name_of(obj): _content(obj) for obj in page.items}
        for name in sorted(listed.keys() | self._state.keys()):
            if listed.get(name) != self._state.get(name):
                self._complain(f"{self.kind.plural}: at {self._revision} {name} was listed otherwise than watched")


def _content(obj: Object) -> Object:
    """Items of a list say once what they all are."""
    return {field: value for field, value in obj.items() if field not in ("apiVersion", "kind")}
