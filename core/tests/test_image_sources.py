"""Several image providers as one."""

from __future__ import annotations

import pytest

from nanocloud.errors import ImageError, NotFoundError, PluginError
from nanocloud.images import ImageSources
from nanocloud.testkit import FakeImages


class Named(FakeImages):
    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    @property
    def name(self) -> str:
        return self._name


@pytest.fixture
def sources() -> tuple[Named, Named, ImageSources]:
    first, second = Named("a"), Named("b")
    return first, second, ImageSources([second, first])


async def test_the_first_by_name_that_has_the_image_answers(sources: tuple[Named, Named, ImageSources]) -> None:
    first, second, images = sources
    both, only = first.add("both"), second.add("only")
    second.add("both")
    assert (await images.resolve("both")).digest == both.digest
    assert (await images.resolve("only")).digest == only.digest
    with pytest.raises(NotFoundError, match="image other is not known"):
        await images.resolve("other")


async def test_a_failure_that_is_not_absence_is_not_passed_over(sources: tuple[Named, Named, ImageSources]) -> None:
    first, second, images = sources
    second.add("web")
    first.calls.fail("resolve", ImageError("registry unreachable"))
    with pytest.raises(ImageError, match="registry unreachable"):
        await images.resolve("web")


async def test_a_pinned_image_that_is_here_asks_nobody(sources: tuple[Named, Named, ImageSources]) -> None:
    _, second, images = sources
    image = second.add("web")
    pinned = f"web@{image.digest}"
    assert (await images.ensure(pinned)).image.digest == image.digest
    second.calls.log.clear()
    assert (await images.ensure(pinned)).image.digest == image.digest
    assert {method for method, _ in second.calls.log} == {"local"}


async def test_an_image_that_nobody_has_here(sources: tuple[Named, Named, ImageSources]) -> None:
    first, _, images = sources
    image = first.add("web")
    with pytest.raises(NotFoundError, match="is not on this machine"):
        await images.local(image.digest)
    with pytest.raises(NotFoundError, match="not known"):
        await images.ensure("other")


async def test_catalogs_and_collected_images_are_joined(sources: tuple[Named, Named, ImageSources]) -> None:
    first, second, images = sources
    kept, gone = first.add("x"), second.add("y")
    await images.ensure("x")
    await images.ensure("y")
    assert [entry.service for entry in await images.catalog()] == ["x", "y"]
    assert await images.collect({kept.digest}) == [gone.digest]


async def test_without_providers_it_says_what_is_missing() -> None:
    images = ImageSources([], missing=PluginError("no image provider is installed"))
    with pytest.raises(PluginError):
        await images.resolve("web")
    with pytest.raises(PluginError):
        await images.ensure("web@sha256:1")
    assert await images.catalog() == []
