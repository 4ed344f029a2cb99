"""Fake image sources with one bug each that breaks sentences of their contract; see ``test_mutants.py``."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
from subjects import ImageSubject

from nanocloud.errors import ImageError
from nanocloud.testkit import FakeImages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence, Set

    from nanocloud.providers.image import Digest, Image, PullProgress, UnpackedImage


class ServesAnUnverifiedLayer(FakeImages):
    def _verify(self, digest: Digest, what: str) -> None:
        if not what.startswith("layer"):
            super()._verify(digest, what)


class TestServesAnUnverifiedLayer(ImageSubject):
    fake = ServesAnUnverifiedLayer
    breaks = ("ImageError: digest, size or diff_id is wrong, or a layer breaks a rule; names the layer and the entry.",)


class CollectsWhatIsNew(FakeImages):
    async def collect(self, in_use: Set[Digest], *, idle_seconds: float = 0.0) -> Sequence[Digest]:
        return await super().collect(in_use)


class TestCollectsWhatIsNew(ImageSubject):
    fake = CollectsWhatIsNew
    breaks = (
        "Images that were resolved, ensured or looked up less than ``idle_seconds`` ago stay: a plan may hold one that "
        "is not stored yet.",
    )


class KeepsItsIndexInMemory(FakeImages):
    """What was unpacked is unpacked again by the next server."""

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self._here.clear()
        yield


class TestKeepsItsIndexInMemory(ImageSubject):
    fake = KeepsItsIndexInMemory
    breaks = ("The image with that manifest digest, without any network, if all of it is here.",)


class FailsWithTheFirst(FakeImages):
    """Whoever comes later waits for the first, who may have given up."""

    def __init__(self) -> None:
        super().__init__()
        self._under_way: dict[Digest, trio.Event] = {}

    async def ensure(self, image: Image, *, progress: PullProgress | None = None) -> UnpackedImage:
        if (first := self._under_way.get(image.digest)) is not None:
            await first.wait()
            if image.digest not in self._here:
                raise ImageError(f"{image.reference} was not unpacked")
            return self._here[image.digest]
        self._under_way[image.digest] = trio.Event()
        try:
            await trio.sleep(0.01)
            return await super().ensure(image, progress=progress)
        finally:
            self._under_way.pop(image.digest).set()


class TestFailsWithTheFirst(ImageSubject):
    fake = FailsWithTheFirst
    breaks = ("Concurrent calls for one layer share the work.",)
