"""Claims become volumes: a PersistentVolumeClaim is made when it appears and removed, with its data, when it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from nanocloud.errors import NanocloudError
from nanocloud.kubelet.prepare import volume_id, volume_spec
from nanocloud.models.core import PERSISTENT_VOLUME_CLAIM
from nanocloud.models.meta import is_deleting, name_of, namespace_of
from nanocloud.objects.reflector import reflect
from nanocloud.workqueue import WorkQueue

if TYPE_CHECKING:
    from nanocloud.kubelet.parts import KubeletParts
    from nanocloud.models.meta import Object
    from nanocloud.objects import WatchEvent

FINALIZER = "nanocloud.io/volume"
"""Holds a deleted claim until its volume is gone."""


class ClaimsWorker:
    """Keeps volumes equal to claims."""

    name = "claims"

    def __init__(self, parts: KubeletParts) -> None:
        self._parts = parts
        self._queue: WorkQueue[tuple[str, str]] = WorkQueue("claims")

    async def run(self) -> None:
        # Somebody waits for a volume to go, and what holds it for a moment tells nobody when it lets go.
        self._queue = WorkQueue("claims", last_backoff_seconds=5.0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._queue.run, self._reconcile)
            await reflect(self._parts.store, PERSISTENT_VOLUME_CLAIM, self._handle)

    def _handle(self, event: WatchEvent) -> None:
        self._queue.add((namespace_of(event.object), name_of(event.object)))

    async def _reconcile(self, key: tuple[str, str]) -> None:
        claim = await self._parts.store.find(PERSISTENT_VOLUME_CLAIM, *key)
        if claim is None:
            return
        if is_deleting(claim):
            await self._remove(claim)
        elif (claim.get("status") or {}).get("phase") != "Bound":
            await self._make(claim)

    async def _make(self, claim: Object) -> None:
        namespace, name = namespace_of(claim), name_of(claim)
        size = claim["spec"]["resources"]["requests"]["storage"]
        try:
            await self._parts.volume.create(volume_spec(claim))
        except NanocloudError as exc:
            await self._parts.events.record(claim, reason="ProvisioningFailed", message=str(exc), type="Warning")
            raise
        status = {"phase": "Bound", "accessModes": claim["spec"].get("accessModes", []), "capacity": {"storage": size}}
        await self._parts.store.modify(
            PERSISTENT_VOLUME_CLAIM, namespace, name, lambda found: {**found, "status": status}, subresource="status"
        )

    async def _remove(self, claim: Object) -> None:
        namespace, name = namespace_of(claim), name_of(claim)
        # While a pod uses it this fails; the pod's worker lets go first, and the queue comes back.
        await self._parts.volume.delete(volume_id(namespace, name))

        def release(found: Object) -> None:
            left = [f for f in found["metadata"].get("finalizers") or [] if f != FINALIZER]
            found["metadata"]["finalizers"] = left

        await self._parts.store.modify(PERSISTENT_VOLUME_CLAIM, namespace, name, release)
