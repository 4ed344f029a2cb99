"""All image providers as one: a reference is asked of each in the order of their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nanocloud.errors import NanocloudError, NotFoundError
from nanocloud.providers.image import Digest

if TYPE_CHECKING:
    from collections.abc import Sequence, Set

    from nanocloud.providers.image import CatalogEntry, Image, ImageProvider, PullProgress, UnpackedImage


class ImageSources:
    """What the controllers and the kubelet know of images."""

    def __init__(self, providers: Sequence[ImageProvider], *, missing: NanocloudError | None = None) -> None:
        self._providers = sorted(providers, key=lambda provider: provider.name)
        self._missing = missing or NotFoundError("no image provider is installed")

    async def catalog(self) -> list[CatalogEntry]:
        return [entry for provider in self._providers for entry in await provider.catalog()]

    async def resolve(self, reference: str) -> Image:
        """The first provider's answer; NotFoundError of the last where none has it, ``missing`` where there is none."""
        missing = self._missing
        for provider in self._providers:
            try:
                return await provider.resolve(reference)
            except NotFoundError as exc:
                missing = exc
        raise missing

    async def local(self, digest: Digest) -> UnpackedImage:
        """The image from what is on this machine. Raises NotFoundError where no provider has it whole."""
        for provider in self._providers:
            try:
                return await provider.local(digest)
            except NotFoundError:
                continue
        raise NotFoundError(f"image {digest} is not on this machine")

    async def ensure(self, reference: str, *, progress: PullProgress | None = None) -> UnpackedImage:
        """Find and fetch ``reference``; one that is pinned by digest and here needs no registry."""
        _, at, digest = reference.partition("@")
        if at:
            try:
                return await self.local(Digest(digest))
            except NotFoundError:
                pass
        missing = self._missing
        for provider in self._providers:
            try:
                image = await provider.resolve(reference)
            except NotFoundError as exc:
                missing = exc
            else:
                return await provider.ensure(image, progress=progress)
        raise missing

    async def collect(self, in_use: Set[Digest], *, idle_seconds: float = 0.0) -> list[Digest]:
        """Have every provider remove what is not in use and was not asked about for ``idle_seconds``."""
        gone: list[Digest] = []
        for provider in self._providers:
            gone += await provider.collect(in_use, idle_seconds=idle_seconds)
        return gone
