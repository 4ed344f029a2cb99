"""List, then watch, for ever: how every controller learns of its objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from nanocloud.errors import CompactedError
from nanocloud.models.meta import name_of, namespace_of, uid_of
from nanocloud.objects.store import WatchEvent, WatchType

if TYPE_CHECKING:
    from collections.abc import Callable

    from nanocloud.models.kinds import ResourceKind
    from nanocloud.models.meta import Object
    from nanocloud.objects.store import ObjectStore


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
    known: dict[tuple[str, str], Object] = {}
    while True:
        page = await store.list(kind)
        fresh = {(namespace_of(obj), name_of(obj)): obj for obj in page.items}
        for key, old in known.items():
            if key not in fresh or uid_of(fresh[key]) != uid_of(old):  # gone, or another one of that name
                handle(WatchEvent(WatchType.DELETED, old, old, page.revision))
        for obj in fresh.values():
            handle(WatchEvent(WatchType.ADDED, obj, None, page.revision))
        known = fresh
        if listed is not None:
            listed()
        try:
            async with store.watch(kind, after=page.revision) as changes:
                async for event in changes:
                    key = namespace_of(event.object), name_of(event.object)
                    if event.type is WatchType.DELETED:
                        known.pop(key, None)
                    else:
                        known[key] = event.object
                    handle(event)
        except CompactedError:
            continue
