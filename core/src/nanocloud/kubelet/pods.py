"""One pod: prepare it, keep its containers running, take it down when it is deleted.

Cancelling a worker leaves the containers alone: they outlive the server, and the next worker adopts them. Only a
deleted pod is taken down.
"""

from __future__ import annotations

import shutil
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import structlog
import trio

from nanocloud.concurrency import first_error, gather, in_thread
from nanocloud.errors import NanocloudError, NotFoundError
from nanocloud.kubelet.backoff import Backoff
from nanocloud.kubelet.logs import last_line
from nanocloud.kubelet.prepare import PodSetupError, PreparedPod, prepare_pod, release_pod
from nanocloud.kubelet.probes import watch_readiness
from nanocloud.kubelet.status import ContainerObservation, PodObservation, pod_status, remember
from nanocloud.kubelet.translate import (
    CONTAINER_NAME,
    POD_UID,
    RESTART_COUNT,
    container_id,
    container_spec,
    log_folder,
)
from nanocloud.models.bundle import BUNDLE, BUNDLE_LABEL
from nanocloud.models.meta import is_deleting, labels_of, name_of, namespace_of, uid_of
from nanocloud.models.pod import DEFAULT_GRACE_SECONDS, POD
from nanocloud.objects import ObjectNotFoundError, PreconditionError
from nanocloud.providers.runtime import ContainerState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nanocloud.kubelet.parts import KubeletParts
    from nanocloud.models.meta import Object
    from nanocloud.providers.runtime import ContainerId, ContainerStatus, ExitStatus

log = structlog.get_logger("kubelet")


class PodWorker:
    """Runs one pod until it is gone. ``update`` tells it of a newer object, ``vanished`` that the object is no more.

    ``left`` are the pod's containers that another life of the server started.
    """

    def __init__(self, pod: Object, parts: KubeletParts, left: Sequence[ContainerStatus] = ()) -> None:
        self._pod = pod
        self._parts = parts
        self._left: Sequence[ContainerStatus] | None = left
        # The pod's containers that may exist, with their names. To ask the runtime would be to ask for all of the node.
        self._containers = {container.id: container.labels.get(CONTAINER_NAME, "") for container in left}
        self._deleted = trio.Event()
        self._writing = trio.Lock()
        self._is_told = True
        """Whether the status holds what was seen last, or is about to."""
        self._seen = PodObservation(
            containers=[ContainerObservation(c["name"], c["image"]) for c in pod["spec"]["containers"]]
        )
        self.update(pod)

    @property
    def uid(self) -> str:
        return uid_of(self._pod)

    def update(self, pod: Object) -> None:
        self._pod = pod
        if is_deleting(pod):
            self._deleted.set()

    def vanished(self) -> None:
        self._deleted.set()

    async def run(self) -> None:
        """Until the pod is gone; a failure is reported in its status and tried again with back-off."""
        backoff = Backoff()
        while True:
            backoff.begin()
            try:
                if self._deleted.is_set():
                    await self._take_down()
                    return
                await self._run_until_deleted()
                continue
            except PodSetupError as exc:
                await self._failed(exc.word, str(exc))
            except NanocloudError as exc:
                await self._failed("ContainerRuntimeError", str(exc))
            except Exception as exc:  # the one place where a pod's failure becomes a status and a retry
                log.exception("pod worker failed", pod=name_of(self._pod), namespace=namespace_of(self._pod))
                await self._failed("InternalError", f"{type(exc).__name__}: {exc}")
            await self._pause(max(backoff.next(), 0.5))

    async def _pause(self, seconds: float) -> None:
        if self._deleted.is_set():
            await trio.sleep(seconds)
        else:
            with trio.move_on_after(seconds):
                await self._deleted.wait()

    async def _run_until_deleted(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._run)
                await self._deleted.wait()
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise first_error(group) from None

    async def _run(self) -> None:
        prepared = await prepare_pod(self._pod, self._parts)
        self._seen.addresses = prepared.network.addresses
        self._seen.started_at = self._seen.started_at or self._parts.clock()
        left, self._left = self._left, None
        if left is None:  # not the first time
            left = [c for c in await self._parts.runtime.list() if c.labels.get(POD_UID) == self.uid]
        async with trio.open_nursery() as nursery:
            for index in range(len(self._seen.containers)):
                nursery.start_soon(self._supervise, index, prepared, left)

    async def _supervise(self, index: int, prepared: PreparedPod, left: Sequence[ContainerStatus]) -> None:
        """Keep one container running for ever."""
        seen, backoff = self._seen.containers[index], Backoff()
        running = await self._adopt(index, left)
        while True:
            backoff.begin()
            try:
                if is_new := running is None:
                    running = await self._start(index, prepared)
                await self._until_exit(index, running, prepared.containers[index].probe, is_new=is_new)
            except NotFoundError:
                pass  # removed behind our back: start a new one
            except NanocloudError as exc:
                seen.waiting = ("CreateContainerError", str(exc))
                await self._event("Failed", f"Error: {exc}", warning=True)
            await self._after_exit(index, running, backoff)
            running = None

    async def _adopt(self, index: int, left: Sequence[ContainerStatus]) -> ContainerId | None:
        """Find this container again after a restart of the server; clear what is not the living one."""
        seen = self._seen.containers[index]
        mine = [c for c in left if c.labels.get(CONTAINER_NAME) == seen.name]
        mine.sort(key=lambda c: int(c.labels.get(RESTART_COUNT, "0")))
        stored: dict[str, Any] = next(
            (c for c in (self._pod.get("status") or {}).get("containerStatuses") or [] if c["name"] == seen.name), {}
        )
        remember(seen, stored)
        for status in mine[:-1]:
            await self._remove(status.id)
        if not mine:
            if "running" in (stored.get("state") or {}):
                seen.restart_count += 1  # it went with the machine
            return None
        last = mine[-1]
        seen.restart_count = max(seen.restart_count, int(last.labels.get(RESTART_COUNT, "0")))
        if last.state is ContainerState.CREATED:
            await self._remove(last.id)
            return None
        seen.container, seen.started_at = last.id, last.started_at
        seen.image_id = str(last.labels.get("nanocloud.io/image", ""))
        seen.ready = bool(stored.get("ready")) and last.state is ContainerState.RUNNING
        return last.id

    async def _start(self, index: int, prepared: PreparedPod) -> ContainerId:
        seen, ready = self._seen.containers[index], prepared.containers[index]
        spec = container_spec(
            self._pod,
            index,
            restart_count=seen.restart_count,
            image=ready.image,
            environment=ready.environment,
            network=prepared.network,
            peers=prepared.peers,
            mounts=ready.mounts,
            files=ready.files,
            tmpfs=ready.tmpfs,
            logs=self._parts.logs,
        )
        seen.waiting = ("ContainerCreating", "")
        seen.container, seen.image_id = spec.id, str(ready.image.image.digest)
        self._containers[spec.id] = seen.name
        await self._parts.runtime.create(spec)
        status = await self._parts.runtime.start(spec.id)
        seen.started_at = status.started_at or self._parts.clock()
        seen.ready = False
        return spec.id

    async def _until_exit(
        self, index: int, container: ContainerId, probe: dict[str, Any] | None, *, is_new: bool
    ) -> None:
        seen = self._seen.containers[index]

        async def report(ready: bool, why_not: str) -> None:
            seen.ready = ready
            if why_not:
                await self._event("Unhealthy", f"Readiness probe failed: {why_not}", warning=True)
            await self._write_status()

        ended: ExitStatus | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch_readiness, probe, container, self._parts.runtime, report)
                nursery.start_soon(self._announce, seen, is_new)
                ended = await self._parts.runtime.wait(container)
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise first_error(group) from None
        finally:
            if ended is not None:
                seen.last_exit, seen.last_started_at = ended, seen.started_at
        path = log_folder(self._parts.logs, self._pod, seen.name) / f"{seen.restart_count}.log"
        seen.last_words = await in_thread(last_line, path) if ended.code else ""

    async def _announce(self, seen: ContainerObservation, is_new: bool) -> None:
        await self._write_status()
        if is_new:
            await self._event("Started", f"Started container {seen.name}")

    async def _after_exit(self, index: int, container: ContainerId | None, backoff: Backoff) -> None:
        seen = self._seen.containers[index]
        has_run = seen.started_at is not None
        seen.started_at, seen.ready = None, False
        container = container or container_id(self.uid, index, seen.restart_count)
        await self._remove(container)
        await in_thread(self._drop_old_logs, seen)
        seen.restart_count += has_run
        delay = backoff.next()
        if delay:
            if has_run and seen.last_exit is not None:
                seen.waiting = ("CrashLoopBackOff", f"ended with {seen.last_exit.code}; starts again in {delay:g} s")
            await self._event("BackOff", f"Back-off restarting failed container {seen.name}", warning=True)
        await self._write_status()
        await trio.sleep(delay)

    def _drop_old_logs(self, seen: ContainerObservation) -> None:
        """The current attempt and the one before can be asked for; older ones go."""
        folder = log_folder(self._parts.logs, self._pod, seen.name)
        for file in folder.glob("*.log") if folder.is_dir() else ():
            if file.stem.isdecimal() and int(file.stem) < seen.restart_count:
                file.unlink(missing_ok=True)

    async def _take_down(self) -> None:
        """Stop the containers with grace, give everything back, then let the object go."""
        meta, spec = self._pod["metadata"], self._pod["spec"]
        grace = meta.get("deletionGracePeriodSeconds", spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS))
        if self._containers:
            await self._event("Killing", f"Stopping container {', '.join(self._containers.values())}")
        await gather(*(partial(self._stop, container, float(grace)) for container in list(self._containers)))
        await release_pod(self._pod, self._parts, for_good=await self._is_last())
        folder = log_folder(self._parts.logs, self._pod, "any").parent
        await in_thread(partial(shutil.rmtree, folder, ignore_errors=True))
        try:
            await self._parts.store.delete(
                POD, namespace_of(self._pod), name_of(self._pod), uid=self.uid, grace_seconds=0
            )
        except (NotFoundError, PreconditionError):
            pass  # removed by force before; another pod may have the name by now

    async def _stop(self, container: ContainerId, grace_seconds: float) -> None:
        try:
            await self._parts.runtime.stop(container, grace_seconds=grace_seconds)
        except NotFoundError:
            pass
        await self._remove(container)

    async def _remove(self, container: ContainerId) -> None:
        await self._parts.runtime.remove(container)
        self._containers.pop(container, None)

    async def _is_last(self) -> bool:
        """Whether no pod will follow this one: its bundle is being uninstalled, or gone."""
        bundle = labels_of(self._pod).get(BUNDLE_LABEL, "")
        try:
            return is_deleting(await self._parts.store.get(BUNDLE, namespace_of(self._pod), bundle))
        except NotFoundError:
            return True

    async def _failed(self, word: str, message: str) -> None:
        if self._deleted.is_set():
            log.warning("pod not taken down", pod=name_of(self._pod), reason=word, error=message)
            await self._event("FailedKillPod", message, warning=True)
            return
        for seen in self._seen.containers:
            seen.waiting = (word, message)
        await self._event("Failed", f"{word}: {message}", warning=True)
        await self._write_status()

    async def _write_status(self) -> None:
        def put(pod: Object) -> None:
            if uid_of(pod) != self.uid:
                raise ObjectNotFoundError(POD, name_of(pod))
            pod["status"] = pod_status(pod, self._seen, now=self._parts.clock())

        self._is_told = False
        async with self._writing:
            if self._is_told:  # whoever had the lock before told this, too
                return
            self._is_told = True
            try:
                await self._parts.store.modify(
                    POD, namespace_of(self._pod), name_of(self._pod), put, subresource="status"
                )
            except NotFoundError:
                self._deleted.set()

    async def _event(self, reason: str, message: str, *, warning: bool = False) -> None:
        kind: Literal["Normal", "Warning"] = "Warning" if warning else "Normal"
        await self._parts.events.record(self._pod, reason=reason, message=message, type=kind, component="kubelet")
