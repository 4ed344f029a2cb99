"""FakeImages: a registry, a catalogue and an image store in a dictionary."""

from __future__ import annotations

import difflib
import hashlib
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

from nanocloud.errors import ImageError, NotFoundError
from nanocloud.providers.image import (
    CatalogEntry,
    Digest,
    Image,
    ImageConfig,
    ImageProvider,
    PullProgress,
    UnpackedImage,
)
from nanocloud.testkit.calls import Calls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence, Set

_LAYER_BYTES = 1024


class FakeImages(ImageProvider):
    """Knows the images that a test adds. A reference that is added again gets a new digest, as a moved tag does.

    ``reference@digest`` finds every image that was ever added, as in a registry. Folders of layers are the test's: they
    stay when an image is collected.
    """

    def __init__(self) -> None:
        self.calls = Calls()
        self._images: dict[str, Image] = {}
        self._pinned: dict[Digest, Image] = {}
        self._layers: dict[Digest, tuple[Path, ...]] = {}
        self._catalog: dict[str, CatalogEntry] = {}
        self._here: dict[Digest, UnpackedImage] = {}
        self._spoiled: set[Digest] = set()
        self._asked: dict[Digest, float] = {}
        """When an image was last resolved, ensured or looked up."""
        self._added = 0

    def add(
        self, reference: str, config: ImageConfig | None = None, *, layers: tuple[Path, ...] = (), description: str = ""
    ) -> Image:
        """Make an image known. A reference without ``/`` and ``:`` is a service of the catalogue too.

        ``layers`` are given back when the image is unpacked; none: a folder that does not exist.
        """
        self._added += 1
        digest = Digest("sha256:" + hashlib.sha256(f"{self._added} {reference}".encode()).hexdigest())
        self._layers[digest] = layers or (Path("/run/fake/layers") / digest.removeprefix("sha256:"),)
        size_bytes = _LAYER_BYTES * len(self._layers[digest])
        image = Image(reference=reference, digest=digest, config=config or ImageConfig(), size_bytes=size_bytes)
        self._images[reference] = self._pinned[digest] = image
        if not {"/", ":"} & set(reference):
            self._catalog[reference] = CatalogEntry(
                service=reference, reference=reference, description=description, built=True
            )
        return image

    def spoil(self, digest: Digest) -> None:
        """The registry has other bytes below this digest from now on, an image's or that of ``layer_digest``."""
        self._spoiled.add(digest)

    @property
    def name(self) -> str:
        return "fake"

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        yield

    async def catalog(self) -> Sequence[CatalogEntry]:
        await self.calls.enter("catalog", "")
        return [entry for _, entry in sorted(self._catalog.items())]

    async def resolve(self, reference: str) -> Image:
        await self.calls.enter("resolve", reference)
        name, _, digest = reference.partition("@")
        if (pinned := self._pinned.get(Digest(digest))) is not None and pinned.reference == name:
            return self._note(self._verified(attrs.evolve(pinned, reference=reference)))
        if reference not in self._images:
            near = difflib.get_close_matches(reference, self._images)
            hint = f"did you mean {', '.join(near)}?" if near else ""
            raise NotFoundError(f"image {reference} is not known", hint=hint)
        return self._note(self._verified(self._images[reference]))

    async def ensure(self, image: Image, *, progress: PullProgress | None = None) -> UnpackedImage:
        await self.calls.enter("ensure", image.reference)
        self._note(image)
        if image.digest not in self._here:
            for layer in map(layer_digest, self._layers[image.digest]):
                self._verify(layer, f"layer {layer} of {image.reference}")
                if progress is not None:
                    progress(done_bytes=_LAYER_BYTES, total_bytes=_LAYER_BYTES, layer=layer)
            self._here[image.digest] = UnpackedImage(image=image, layers=self._layers[image.digest])
        return self._here[image.digest]

    async def local(self, digest: Digest) -> UnpackedImage:
        await self.calls.enter("local", digest)
        if digest not in self._here:
            raise NotFoundError(f"image {digest} is not on this node")
        self._note(self._here[digest].image)
        return self._here[digest]

    async def collect(self, in_use: Set[Digest], *, idle_seconds: float = 0.0) -> Sequence[Digest]:
        await self.calls.enter("collect", "")
        now = trio.current_time()
        fresh = {digest for digest, asked in self._asked.items() if now - asked < idle_seconds}
        gone = sorted(digest for digest in self._here if digest not in fresh | in_use)
        for digest in gone:
            del self._here[digest]
        return gone

    @property
    def here(self) -> set[Digest]:
        """What is unpacked."""
        return set(self._here)

    def _verified(self, image: Image) -> Image:
        self._verify(image.digest, image.reference)
        return image

    def _verify(self, digest: Digest, what: str) -> None:
        if digest in self._spoiled:
            raise ImageError(f"{what} has not the digest {digest}")

    def _note(self, image: Image) -> Image:
        self._asked[image.digest] = trio.current_time()
        return image


def layer_digest(folder: Path) -> Digest:
    """Of the layer that is unpacked there."""
    return Digest("sha256:" + hashlib.sha256(str(folder).encode()).hexdigest())
