"""Images that nothing uses any more are removed, a while after they stopped being used.

An image is used by the profiles that name it, by pods, and by containers that exist. What a plan has just resolved and
not stored yet is used by nobody so far; so the provider leaves alone what it was asked about lately. Profiles are
stored within moments, and half the time that unused images are kept is much more than that.

Driven by watches: only what takes an image out of use has us look, so an idle node does nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from nanocloud.errors import NanocloudError
from nanocloud.kubelet.translate import IMAGE
from nanocloud.models.bundle import BUNDLE
from nanocloud.models.pod import POD
from nanocloud.objects import WatchType
from nanocloud.objects.reflector import reflect
from nanocloud.providers.image import Digest

if TYPE_CHECKING:
    from nanocloud.controllers.profiles import ProfileStore
    from nanocloud.images import ImageSources
    from nanocloud.models.meta import Object
    from nanocloud.objects import ObjectStore, WatchEvent
    from nanocloud.providers.runtime import RuntimeProvider

log = structlog.get_logger("images")


class ImageCollector:
    """Has the image providers remove what is not used."""

    name = "images"

    def __init__(
        self,
        *,
        store: ObjectStore,
        profiles: ProfileStore,
        images: ImageSources,
        runtime: RuntimeProvider,
        keep_seconds: float,
    ) -> None:
        self._store, self._profiles, self._images, self._runtime = store, profiles, images, runtime
        self._keep_seconds = keep_seconds
        self._look = trio.Event()

    async def run(self) -> None:
        self._look = trio.Event()
        self._look.set()  # what a former life of the server left
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reflect, self._store, BUNDLE, self._changed)
            nursery.start_soon(reflect, self._store, POD, self._changed)
            while True:
                await self._look.wait()
                self._look = trio.Event()  # what changes from here on is looked at once more
                await trio.sleep(self._keep_seconds)
                await self._collect()

    def _changed(self, event: WatchEvent) -> None:
        if event.type is WatchType.DELETED or _named(event.previous) - _named(event.object):
            self._look.set()

    async def _collect(self) -> None:
        try:
            gone = await self._images.collect(await self.in_use(), idle_seconds=self._keep_seconds / 2)
        except NanocloudError as exc:
            log.warning("unused images are left", retry_seconds=self._keep_seconds, error=str(exc))
            self._look.set()
            return
        if gone:
            log.info("removed unused images", images=gone)

    async def in_use(self) -> set[Digest]:
        """The digests of every image that something needs."""
        used = await self._profiles.images()
        for pod in (await self._store.list(POD)).items:
            used |= {Digest(name) for name in _named(pod)}
        for container in await self._runtime.list():
            used.add(Digest(container.labels.get(IMAGE, "")))
        return used


def _named(obj: Object | None) -> set[str]:
    """The digests that a bundle's status or a pod names."""
    if obj is None:
        return set()
    status = obj.get("status") or {}
    names = [status.get("image") or ""]
    names += [container.get("image") or "" for container in (obj.get("spec") or {}).get("containers") or []]
    names += [found.get("imageID") or "" for found in status.get("containerStatuses") or []]
    return {name.rpartition("@")[2] for name in names if "sha256:" in name}
