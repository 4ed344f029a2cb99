"""List, then watch, for ever: how every controller learns of its objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import orjson

from nanocloud.errors import CompactedError
from nanocloud.models.meta import name_of, namespace_of, uid_of
from nanocloud.objects.store import WatchEvent, WatchType

if TYPE_CHECKING:
    from collections.abc import Callable

    from nanocloud.models.kinds import ResourceKind
    from nanocloud.models.meta import Object
    from nanocloud.objects.store import ObjectStore

_Known = dict[tuple[str, str], bytes]
"""Objects as JSON: as objects they would be most of a node's memory."""


async def reflect(
    store: ObjectStore,
    kind: ResourceKind,
    handle: Callable[[WatchEvent], None],
    *,
    listed: Callable[[], None] | None = None,
) -> NoReturn:
    """Tell ``handle`` of every object that is there, then of every change, until cancelled.

    A watcher that fell behind compaction lists again: objects that went meanwhile are told as deleted, all others as
    added once more. ``listed`` is called after each list.
    """
    known: _Known = {}
    while True:
        known, revision = await _tell_all(store, kind, known, handle)
        if listed is not None:
            listed()
        try:
            async with store.watch(kind, after=revision) as changes:
                async for event in changes:
                    if event.type is WatchType.DELETED:
                        known.pop(_key(event.object), None)
                    else:
                        known[_key(event.object)] = _packed(event.object)
                    handle(event)
        except CompactedError:
            continue


async def _tell_all(
    store: ObjectStore, kind: ResourceKind, known: _Known, handle: Callable[[WatchEvent], None]
) -> tuple[_Known, int]:
    """Tell of every object there is, and of those of ``known`` that are not; returns what is known now, and when."""
    page = await store.list(kind)
    fresh = {_key(obj): uid_of(obj) for obj in page.items}
    for old in map(orjson.loads, known.values()):
        if fresh.get(_key(old)) != uid_of(old):  # gone, or another one of that name
            handle(WatchEvent(WatchType.DELETED, old, old, page.revision))
    for obj in page.items:
        handle(WatchEvent(WatchType.ADDED, obj, None, page.revision))
    return {_key(obj): _packed(obj) for obj in page.items}, page.revision


def _packed(obj: Object) -> bytes:
    return bytes(memoryview(orjson.dumps(obj)))  # a copy: what orjson returns keeps the several times larger buffer


def _key(obj: Object) -> tuple[str, str]:
    return namespace_of(obj), name_of(obj)
