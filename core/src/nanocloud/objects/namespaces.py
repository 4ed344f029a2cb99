"""Deleting a namespace: everything in it goes first, then the namespace.

A deleted namespace is held by its finalizer. Its objects are deleted, those that finalizers or their grace hold are
waited for, and then the finalizer is taken off. Repeats from any point after a crash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from nanocloud.errors import CompactedError, ConflictError, NotFoundError
from nanocloud.models.core import NAMESPACE
from nanocloud.models.meta import Object, is_deleting, name_of
from nanocloud.objects.codec import ROOT
from nanocloud.objects.store import WatchType

if TYPE_CHECKING:
    from nanocloud.objects.store import ObjectStore

log = structlog.get_logger(__name__)

FINALIZER = "nanocloud.io/namespace"
_NAMESPACE_SEGMENT = 3  # of an object's key


class NamespaceController:
    """Empties namespaces that were deleted."""

    name = "namespaces"

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._emptying: set[str] = set()

    async def run(self) -> None:
        """Work until cancelled."""
        self._emptying.clear()
        async with trio.open_nursery() as nursery:
            present = await self._store.list(NAMESPACE)
            for namespace in present.items:
                self._consider(namespace, nursery)
            async with self._store.watch(NAMESPACE, after=present.revision) as events:
                async for event in events:
                    if event.type is not WatchType.DELETED:
                        self._consider(event.object, nursery)

    def _consider(self, namespace: Object, nursery: trio.Nursery) -> None:
        name = name_of(namespace)
        is_held = FINALIZER in (namespace["metadata"].get("finalizers") or ())
        if is_deleting(namespace) and is_held and name not in self._emptying:
            self._emptying.add(name)
            nursery.start_soon(self._empty, name)

    async def _empty(self, name: str) -> None:
        try:
            while True:
                before = self._store.revision
                if not await self._delete_contents(name):
                    break
                await self._next_change(name, after=before)
            await self._store.modify(NAMESPACE, "", name, _release)
            log.info("namespace removed", namespace=name)
        except NotFoundError:
            pass
        finally:
            self._emptying.discard(name)

    async def _delete_contents(self, name: str) -> int:
        """Delete what is there; return how much of it is not gone yet."""
        left = 0
        for kind in self._store.registry:
            if not kind.namespaced:
                continue
            for obj in (await self._store.list(kind, name)).items:
                if is_deleting(obj):
                    left += 1
                    continue
                try:
                    _, gone = await self._store.delete(kind, name, name_of(obj), uid=obj["metadata"]["uid"])
                except (NotFoundError, ConflictError):
                    gone = False  # looked at again after the next change, which this is
                left += not gone
        return left

    async def _next_change(self, name: str, *, after: int) -> None:
        try:
            async with self._store.keyspace.watch(ROOT, after=after) as changes:
                async for change in changes:
                    if change.entry is None and change.key[_NAMESPACE_SEGMENT : _NAMESPACE_SEGMENT + 1] == (name,):
                        return
        except CompactedError:
            return  # much happened: look again


def _release(namespace: Object) -> None:
    finalizers = namespace["metadata"].get("finalizers") or []
    namespace["metadata"]["finalizers"] = [entry for entry in finalizers if entry != FINALIZER]
