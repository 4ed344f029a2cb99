"""Addresses that outlive pods: a bundle keeps its own while it is stopped, and gives it back when it is uninstalled.

A pod that is taken down with its bundle gives the address back itself. One that went before, because the bundle was
stopped, does not; so a finalizer holds the deleted bundle until the network has the address again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from nanocloud.models.bundle import ADDRESS_FINALIZER, BUNDLE, BUNDLE_LABEL
from nanocloud.models.meta import is_deleting, labels_of, name_of, namespace_of
from nanocloud.models.pod import POD
from nanocloud.objects import WatchType
from nanocloud.objects.reflector import reflect
from nanocloud.workqueue import WorkQueue

if TYPE_CHECKING:
    from nanocloud.kubelet.parts import KubeletParts
    from nanocloud.models.meta import Object
    from nanocloud.objects import WatchEvent

_Key = tuple[str, str]


class AddressesWorker:
    """Gives back the addresses of bundles that go."""

    name = "addresses"

    def __init__(self, parts: KubeletParts) -> None:
        self._parts = parts
        self._queue: WorkQueue[_Key] = WorkQueue("addresses")

    async def run(self) -> None:
        # Somebody waits for the bundle to be gone.
        self._queue = WorkQueue("addresses", last_backoff_seconds=5.0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._queue.run, self._reconcile)
            nursery.start_soon(reflect, self._parts.store, POD, self._pod_changed)
            await reflect(self._parts.store, BUNDLE, self._bundle_changed)

    def _bundle_changed(self, event: WatchEvent) -> None:
        if is_deleting(event.object) and event.type is not WatchType.DELETED:
            self._queue.add((namespace_of(event.object), name_of(event.object)))

    def _pod_changed(self, event: WatchEvent) -> None:
        if event.type is WatchType.DELETED:
            self._queue.add((namespace_of(event.object), labels_of(event.object).get(BUNDLE_LABEL, "")))

    async def _reconcile(self, key: _Key) -> None:
        bundle = await self._parts.store.find(BUNDLE, *key)
        if bundle is None or not is_deleting(bundle):
            return
        namespace, name = key
        if await self._parts.store.find(POD, namespace, f"{name}-0") is not None:
            return  # its going comes back here
        await self._parts.network.release(f"{namespace}/{name}-0")
        await self._parts.store.modify(BUNDLE, namespace, name, _release)


def _release(bundle: Object) -> None:
    left = [f for f in bundle["metadata"].get("finalizers") or [] if f != ADDRESS_FINALIZER]
    bundle["metadata"]["finalizers"] = left
