"""The kubelet: one worker a pod, what is left of pods that are no more, and the names that pods resolve."""

from __future__ import annotations

import shutil
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from nanocloud.concurrency import in_thread
from nanocloud.errors import NanocloudError
from nanocloud.kubelet.names import NameTable
from nanocloud.kubelet.pods import PodWorker
from nanocloud.kubelet.translate import POD_UID, pods_folder, sandbox_id
from nanocloud.models.meta import uid_of
from nanocloud.models.pod import POD
from nanocloud.objects import WatchType
from nanocloud.objects.reflector import reflect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from nanocloud.kubelet.parts import KubeletParts
    from nanocloud.objects import WatchEvent
    from nanocloud.providers.runtime import ContainerStatus

log = structlog.get_logger("kubelet")

_NAMES_RETRY_SECONDS = 1.0
Containers = dict[str, list["ContainerStatus"]]
"""By the uid of their pod."""


class Kubelet:
    """Runs every Pod object of the node."""

    name = "kubelet"

    def __init__(self, parts: KubeletParts) -> None:
        self._parts = parts
        self._workers: dict[str, PodWorker] = {}
        self._names = NameTable()
        self._renamed = trio.Event()

    async def run(self) -> None:
        """Until cancelled; containers are left running."""
        self._workers.clear()
        self._names, self._renamed = NameTable(), trio.Event()
        found = await collect_orphans(self._parts)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._publish_names)

            def handle(event: WatchEvent) -> None:
                self._handle(event, found, nursery)

            await reflect(self._parts.store, POD, handle, listed=lambda: self._renamed.set())

    def _handle(self, event: WatchEvent, found: Containers, nursery: trio.Nursery) -> None:
        uid = uid_of(event.object)
        worker = self._workers.get(uid)
        if event.type is WatchType.DELETED:
            renamed = self._names.drop(uid)
            if worker is not None:
                worker.vanished()
        else:
            renamed = self._names.put(event.object)
            if worker is not None:
                worker.update(event.object)
            else:
                worker = self._workers[uid] = PodWorker(event.object, self._parts, found.pop(uid, ()))
                nursery.start_soon(self._work, worker)
        if renamed:
            self._renamed.set()

    async def _work(self, worker: PodWorker) -> None:
        try:
            await worker.run()
        finally:
            self._workers.pop(worker.uid, None)

    async def _publish_names(self) -> None:
        """Keep the network's names equal to the pods'; many changes at once are one update."""
        while True:
            await self._renamed.wait()
            self._renamed = trio.Event()
            try:
                await self._parts.network.set_names(self._names.names.copy())
            except NanocloudError as exc:
                log.warning("names not published", retry_seconds=_NAMES_RETRY_SECONDS, error=str(exc))
                await trio.sleep(_NAMES_RETRY_SECONDS)
                self._renamed.set()


async def collect_orphans(parts: KubeletParts) -> Containers:
    """Remove containers, sandboxes, volume uses and logs of pods that the keyspace does not know (any more).

    What cannot be removed now is left to the next start: it must not keep the other pods from running.

    Returns:
        The containers that live on.
    """
    living: Containers = defaultdict(list)
    pods = (await parts.store.list(POD)).items
    known = {uid_of(pod) for pod in pods}
    sandboxes = {sandbox_id(uid) for uid in known}
    for container in await parts.runtime.list():
        uid = container.labels.get(POD_UID, "")
        if uid in known:
            living[uid].append(container)
        else:
            await _collect("container", container.id, partial(parts.runtime.remove, container.id))
    for network in await parts.network.list():
        if network.sandbox not in sandboxes:
            await _collect("network", network.sandbox, partial(parts.network.detach, network.sandbox))
    for volume in await parts.volume.list():
        for consumer in volume.consumers:
            if consumer not in sandboxes:
                unpublish = partial(parts.volume.unpublish, volume.id, consumer=consumer)
                await _collect("use of a volume", volume.id, unpublish)
    await in_thread(_remove_logs, parts.logs, known)
    return living


async def _collect(what: str, name: str, remove: Callable[[], Awaitable[None]]) -> None:
    try:
        await remove()
    except NanocloudError as exc:
        log.warning("something without a pod is left", what=what, name=name, error=str(exc))
    else:
        log.info("removed what had no pod", what=what, name=name)


def _remove_logs(logs: Path, known: set[str]) -> None:
    folder = pods_folder(logs)
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.rpartition("_")[2] not in known:
            shutil.rmtree(path, ignore_errors=True)
