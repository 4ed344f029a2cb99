"""The image provider: finds images, fetches and unpacks their layers side by side, and removes what nobody needs."""

from __future__ import annotations

import logging
import os
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from nanocloud.concurrency import first_error, gather
from nanocloud.errors import ImageError, NotFoundError
from nanocloud.providers.image import Digest, Image, ImageProvider, UnpackedImage
from nanocloud_dockyard import services
from nanocloud_dockyard.assembly import assemble
from nanocloud_dockyard.collect import collect
from nanocloud_dockyard.media import parse_manifest, this_platform
from nanocloud_dockyard.reference import Reference, ServiceReference, parse_reference
from nanocloud_dockyard.resolver import CachedSource, Found, build, find
from nanocloud_dockyard.shared import SharedWork
from nanocloud_dockyard.slots import Slots
from nanocloud_dockyard.source import digest_of
from nanocloud_dockyard.sources import Sources
from nanocloud_dockyard.store import ImageRecord, Store
from nanocloud_dockyard.unpacker import LayerBytesError, UnpackJob, unpack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence, Set
    from pathlib import Path

    from nanocloud.providers.image import CatalogEntry, PullProgress
    from nanocloud_dockyard.media import Descriptor
    from nanocloud_dockyard.retry import Backoff
    from nanocloud_dockyard.settings import DockyardConfig
    from nanocloud_dockyard.source import Source
    from nanocloud_dockyard.store import NewLayer


log = logging.getLogger(__name__)


class Dockyard(ImageProvider):
    """Images below ``root``; see ``store`` for the folder."""

    def __init__(self, config: DockyardConfig, root: Path, *, backoff: Backoff | None = None) -> None:
        self._config = config
        self._store = Store(root)
        self._sources = Sources(config, self._store.layout, backoff)
        self._here = this_platform()
        self._slots = Slots(config.parallel_layers)
        self._changing = trio.Lock()  # of records, against collection
        self._collected = trio.Event()
        self._collected.set()
        """Whether no collection is under way."""
        self._unsettled = trio.Event()
        self._unsettled.set()
        """Whether there may be layers that are not on the disk yet."""
        self._touched: dict[Digest, float] = {}
        """When an image was last asked about."""
        self._whole: dict[Digest, UnpackedImage] = {}
        """Images that were found whole; what a digest names does not change."""
        self._pinned: Counter[Digest] = Counter()
        """Images and layers that an ``ensure`` under way has or makes."""
        self._listeners: dict[Digest, list[PullProgress]] = {}

    @property
    def name(self) -> str:
        return "dockyard"

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        await trio.to_thread.run_sync(self._store.prepare)
        try:
            async with self._sources, trio.open_nursery() as nursery:
                self._work: SharedWork[None] = SharedWork(nursery)
                nursery.start_soon(self._keep_settling)
                yield
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:  # the nursery's wrapping of what the body raised
            raise first_error(group) from None

    async def _keep_settling(self) -> None:
        """Bring new layers to the disk, which those who want to use them do not wait for."""
        while True:
            await self._unsettled.wait()
            self._unsettled = trio.Event()
            try:
                await trio.to_thread.run_sync(self._store.settle)
            except OSError as exc:  # the marks stay: the next boot fetches these layers again
                log.error("layers may not be on the disk: %s", exc)

    async def catalog(self) -> Sequence[CatalogEntry]:
        return await trio.to_thread.run_sync(services.entries, self._store.layout, self._config.registry)

    async def resolve(self, reference: str) -> Image:
        parsed = parse_reference(reference)
        found = await self._first(parsed, lambda source: find(source, parsed.digest, self._here))
        self._check_size(found, reference)
        self._touched[found.digest] = trio.current_time()
        await self._keep(found, reference)
        return _image(found, reference)

    async def ensure(self, image: Image, *, progress: PullProgress | None = None) -> UnpackedImage:
        if os.geteuid() != 0:
            raise ImageError(f"{image.reference}: unpacking needs root, for files keep their owners")
        parsed = parse_reference(image.reference)
        found = await self._first(parsed, lambda source: find(source, image.digest, self._here))
        self._check_size(found, image.reference)
        self._touched[image.digest] = trio.current_time()
        with self._pins((image.digest, *found.configuration.diff_ids)):
            await self._keep(found, image.reference)
            layers = dict(zip(found.configuration.diff_ids, found.manifest.layers, strict=True))
            missing = await trio.to_thread.run_sync(self._missing, tuple(layers))
            try:
                await gather(*(partial(self._ensure_layer, parsed, d, layers[d], progress) for d in missing))
                return await trio.to_thread.run_sync(self._unpacked, found, image)
            finally:
                self._unsettled.set()

    async def local(self, digest: Digest) -> UnpackedImage:
        self._touched[digest] = trio.current_time()  # before the wait: a collection that begins now spares it
        await self._collected.wait()
        known = self._whole.get(digest)
        if known is not None and _is_there(known):
            return known
        found = self._whole[digest] = await trio.to_thread.run_sync(self._local, digest)
        return found

    async def collect(self, in_use: Set[Digest], *, idle_seconds: float = 0.0) -> Sequence[Digest]:
        async with self._changing:
            self._collected = trio.Event()
            try:
                keep = set(in_use) | set(self._pinned) | self._fresh(idle_seconds)
                gone = await trio.to_thread.run_sync(collect, self._store, keep)
                self._whole.clear()
            finally:
                self._collected.set()
        await trio.to_thread.run_sync(self._store.sweep)
        return gone

    async def configuration(self, digest: Digest) -> bytes:
        """The configuration document of an image that was resolved here, as it is."""
        return await trio.to_thread.run_sync(self._configuration, digest)

    def _configuration(self, digest: Digest) -> bytes:
        manifest = self._store.blob(digest)
        document = self._store.blob(parse_manifest(manifest, f"image {digest}").config.digest) if manifest else None
        if document is None:
            raise NotFoundError(f"image {digest} is not on this node")
        return document

    def _fresh(self, seconds: float) -> set[Digest]:
        since = trio.current_time() - seconds
        self._touched = {digest: at for digest, at in self._touched.items() if at > since}
        return set(self._touched)

    # Sources

    async def _first(self, reference: Reference, ask: Callable[[Source], Awaitable[Found]]) -> Found:
        """What the first source answers that has it."""
        missing: NotFoundError | None = None
        for source in self._sources.of(reference):
            try:
                return await ask(CachedSource(self._store, source))
            except NotFoundError as exc:
                missing = exc
        if isinstance(reference, ServiceReference):
            raise await trio.to_thread.run_sync(
                partial(services.missing, reference.service, self._config.registry, layout=self._store.layout)
            )
        raise missing or NotFoundError(f"image {reference} is unknown")

    # Layers

    def _missing(self, diff_ids: tuple[Digest, ...]) -> list[Digest]:
        return [diff_id for diff_id in diff_ids if self._store.layer(diff_id) is None]

    async def _ensure_layer(
        self, reference: Reference, diff_id: Digest, layer: Descriptor, progress: PullProgress | None
    ) -> None:
        listeners = self._listeners.setdefault(diff_id, [])
        if progress:
            listeners.append(progress)
        try:
            way = (reference, layer)
            await self._work.run(diff_id, way, lambda: self._make_layer(reference, diff_id, layer))
        finally:
            if progress:
                listeners.remove(progress)
            if not listeners:
                self._listeners.pop(diff_id, None)

    async def _make_layer(self, reference: Reference, diff_id: Digest, layer: Descriptor) -> None:
        if await trio.to_thread.run_sync(self._store.layer, diff_id):
            return  # somebody else made it since we looked
        missing = NotFoundError(f"layer {layer.digest} of {reference} is nowhere")
        for source in self._sources.of(reference):
            try:
                await self._unpack_from(source, diff_id, layer)
                return
            except NotFoundError as exc:
                missing = exc
        raise ImageError(f"{reference}: {missing}") from missing

    async def _unpack_from(self, source: Source, diff_id: Digest, layer: Descriptor) -> None:
        try:
            await self._unpack(source, diff_id, layer)
        except LayerBytesError as exc:
            if not source.distrust():
                raise type(exc)(f"{source.name}: {exc}") from exc
            await self._unpack(source, diff_id, layer)

    async def _unpack(self, source: Source, diff_id: Digest, layer: Descriptor) -> None:
        async with self._new_layer() as new:
            async with self._slots.hold(layer.size_bytes), source.layer(layer) as content:
                job = UnpackJob(layer=layer, diff_id=diff_id, root_fd=new.root_fd, limits=self._config.limits.unpack)
                record = await unpack(job, content, partial(self._report, diff_id, layer))
            self._report(diff_id, layer, layer.size_bytes)
            await trio.to_thread.run_sync(self._store.finish_layer, new, diff_id, record)

    @asynccontextmanager
    async def _new_layer(self) -> AsyncIterator[NewLayer]:
        making = self._store.new_layer()
        new = await trio.to_thread.run_sync(making.__enter__)
        try:
            yield new
        finally:
            with trio.CancelScope(shield=True):  # removing half a layer takes as long as it takes
                await trio.to_thread.run_sync(making.__exit__, None, None, None)

    def _report(self, diff_id: Digest, layer: Descriptor, done_bytes: int) -> None:
        for listener in tuple(self._listeners.get(diff_id, ())):
            listener(done_bytes=done_bytes, total_bytes=layer.size_bytes, layer=layer.digest)

    # Records

    def _check_size(self, found: Found, reference: str) -> None:
        most = self._config.limits.max_image_bytes
        if found.manifest.size_bytes > most:
            raise ImageError(
                f"{reference} has layers of {found.manifest.size_bytes} bytes; the limit is {most} (max_image_bytes)"
            )

    async def _keep(self, found: Found, reference: str) -> None:
        record = ImageRecord(
            references=(reference,),
            documents=tuple(map(digest_of, found.documents)),
            layers=found.configuration.diff_ids,
        )
        async with self._changing:
            known = self._whole.pop(found.digest, None)
            if known is not None and known.image.reference == reference and _is_there(known):
                self._whole[found.digest] = known  # it was read from just this record
                return
            await trio.to_thread.run_sync(self._store.keep, found.digest, record, found.documents)

    def _unpacked(self, found: Found, image: Image) -> UnpackedImage:
        layers = assemble(self._store, found.configuration.diff_ids, make=True)
        if not layers:
            raise ImageError(f"{image.reference} has no layers")
        return UnpackedImage(image=_image(found, image.reference), layers=layers)

    def _local(self, digest: Digest) -> UnpackedImage:
        record, manifest = self._store.image(digest), self._store.blob(digest)
        if record and manifest:
            what = f"image {digest}"
            configuration = self._store.blob(parse_manifest(manifest, what).config.digest)
            layers = assemble(self._store, record.layers, make=False)
            if configuration and layers:
                found = build(manifest, configuration, what)
                return UnpackedImage(image=_image(found, record.references[-1]), layers=layers)
        raise NotFoundError(f"image {digest} is not on this node whole")

    @contextmanager
    def _pins(self, digests: tuple[Digest, ...]) -> Iterator[None]:
        self._pinned.update(digests)
        try:
            yield
        finally:
            self._pinned.subtract(digests)
            self._pinned += Counter()  # drops what is at zero


def _is_there(image: UnpackedImage) -> bool:
    return all(layer.is_dir() for layer in image.layers)


def _image(found: Found, reference: str) -> Image:
    return Image(
        reference=reference,
        digest=found.digest,
        config=found.configuration.config,
        size_bytes=found.manifest.size_bytes,
    )
