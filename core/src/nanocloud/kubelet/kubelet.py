"""The kubelet: one worker a pod, what is left of pods that are no more, and the names that pods resolve."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from nanocloud.errors import NanocloudError
from nanocloud.kubelet.names import published_names
from nanocloud.kubelet.pods import PodWorker
from nanocloud.kubelet.translate import POD_UID, sandbox_id
from nanocloud.models.meta import uid_of
from nanocloud.models.pod import POD
from nanocloud.objects import WatchType
from nanocloud.objects.reflector import reflect

if TYPE_CHECKING:
    from nanocloud.kubelet.parts import KubeletParts
    from nanocloud.models.meta import Object
    from nanocloud.objects import WatchEvent

log = structlog.get_logger("kubelet")


class Kubelet:
    """Runs every Pod object of the node."""

    name = "kubelet"

    def __init__(self, parts: KubeletParts) -> None:
        self._parts = parts
        self._workers: dict[str, PodWorker] = {}
        self._pods: dict[str, Object] = {}
        self._renamed = trio.Event()

    async def run(self) -> None:
        """Until cancelled; containers are left running."""
        self._workers.clear()
        self._pods.clear()
        await collect_orphans(self._parts)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._publish_names)

            def handle(event: WatchEvent) -> None:
                self._handle(event, nursery)

            await reflect(self._parts.store, POD, handle)

    def _handle(self, event: WatchEvent, nursery: trio.Nursery) -> None:
        uid = uid_of(event.object)
        worker = self._workers.get(uid)
        if event.type is WatchType.DELETED:
            self._pods.pop(uid, None)
            if worker is not None:
                worker.vanished()
        else:
            self._pods[uid] = event.object
            if worker is not None:
                worker.update(event.object)
            else:
                worker = self._workers[uid] = PodWorker(event.object, self._parts)
                nursery.start_soon(self._work, worker)
        self._renamed.set()

    async def _work(self, worker: PodWorker) -> None:
        try:
            await worker.run()
        finally:
            self._workers.pop(worker.uid, None)

    async def _publish_names(self) -> None:
        """Keep the network's names equal to the pods'; many changes at once are one update."""
        published = None
        while True:
            self._renamed = trio.Event()
            names = published_names(self._pods.values())
            if names != published:
                await self._parts.network.set_names(names)
                published = names
            await self._renamed.wait()


async def collect_orphans(parts: KubeletParts) -> None:
    """Remove containers, sandboxes and volume uses of pods that the keyspace does not know (any more)."""
    pods = (await parts.store.list(POD)).items
    known = {uid_of(pod) for pod in pods}
    sandboxes = {sandbox_id(uid) for uid in known}
    for container in await parts.runtime.list():
        if container.labels.get(POD_UID) not in known:
            log.info("collecting a container without a pod", container=container.id)
            await parts.runtime.remove(container.id)
    for network in await parts.network.list():
        if network.sandbox not in sandboxes:
            log.info("collecting a network without a pod", sandbox=network.sandbox)
            await parts.network.detach(network.sandbox)
    for volume in await parts.volume.list():
        for consumer in volume.consumers:
            if consumer not in sandboxes:
                try:
                    await parts.volume.unpublish(volume.id, consumer=consumer)
                except NanocloudError as exc:  # the next start tries again
                    log.warning("volume not released", volume=volume.id, error=str(exc))
