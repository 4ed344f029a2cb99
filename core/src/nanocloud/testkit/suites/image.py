"""What every image provider must keep. The images are small, and come from an OCI layout folder."""

from __future__ import annotations

import os
import random
import re
import stat
from typing import TYPE_CHECKING

import pytest
import trio

from nanocloud.errors import ImageError, NotFoundError
from nanocloud.providers.image import Digest, ImageConfig, ImageProvider, UnpackedImage
from nanocloud.testkit.suites.base import ProviderSuite
from nanocloud.testkit.suites.cancelling import cancel_at_every_await
from nanocloud.testkit.suites.layout import ImageSource, LayoutSource, Published

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WHITEOUT = os.makedev(0, 0)
LIMIT_SECONDS = 60
"""More than any single step takes; a provider that hangs fails instead of hanging the run."""

BASE = {"etc/base": b"base", "etc/both": b"lower"}
TOP = {"top": b"top", "etc/both": b"upper"}
CONFIG = {
    "Entrypoint": ["/bin/program"],
    "Cmd": ["--serve"],
    "Env": ["A=b", "C=d=e"],
    "WorkingDir": "/srv",
    "User": "web:media",
    "Labels": {"io.nanocloud.options": "{}"},
    "ExposedPorts": {"80/tcp": {}},
    "Volumes": {"/data": {}},
    "StopSignal": "SIGQUIT",
}
READ = ImageConfig(
    entrypoint=("/bin/program",),
    command=("--serve",),
    environment={"A": "b", "C": "d=e"},
    working_directory="/srv",
    user="web:media",
    labels={"io.nanocloud.options": "{}"},
    exposed_ports=("80/tcp",),
    volumes=("/data",),
    stop_signal="SIGQUIT",
)


class ImageProviderSuite(ProviderSuite[ImageProvider]):
    contract = "image"

    @pytest.fixture
    def source(self, tmp_path: Path) -> ImageSource:
        """Where images come from."""
        return LayoutSource(tmp_path / "layout")

    @pytest.fixture
    def published(self, source: ImageSource) -> Published:
        """An image of two layers."""
        return source.publish("v1", BASE, TOP, config=CONFIG)

    async def ensured(self, provider: ImageProvider, reference: str) -> UnpackedImage:
        with trio.fail_after(LIMIT_SECONDS):
            return await provider.ensure(await provider.resolve(reference))

    def check_whole(self, unpacked: UnpackedImage) -> None:
        assert files_of(unpacked) == BASE | TOP

    # Resolving

    async def test_resolving_reads_manifest_and_configuration(
        self, provider: ImageProvider, source: ImageSource, published: Published
    ) -> None:
        """Read manifest and configuration of ``reference``; fetches no layer."""
        for layer in published.layers:
            source.damage(layer)
        image = await provider.resolve(published.reference)
        assert image.config == READ
        assert image.size_bytes == published.size_bytes
        with pytest.raises(NotFoundError):
            await provider.local(image.digest)

    async def test_an_image_says_how_it_was_asked_for(self, provider: ImageProvider, published: Published) -> None:
        """As it was asked for."""
        for reference in (published.reference, f"{published.reference}@{published.digest}"):
            assert (await provider.resolve(reference)).reference == reference

    async def test_a_digest_is_the_manifests(self, provider: ImageProvider, published: Published) -> None:
        """Of the manifest."""
        digest = (await provider.resolve(published.reference)).digest
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", digest)
        assert digest == published.digest

    async def test_a_pinned_image_is_found_whatever_its_tag_says_now(
        self, provider: ImageProvider, source: ImageSource, published: Published
    ) -> None:
        """Shape of ``reference``: a catalogue service (``mariadb``), a registry reference (``host[:port]/name[:tag]``,
        ``...@sha256:...``), an OCI layout folder (``oci:/path[:tag]``) or archive (``oci-archive:/path[:tag]``)."""
        moved = source.publish("v1", BASE, {"new": b"new"}, config={})
        assert (await provider.resolve(published.reference)).digest == moved.digest
        pinned = await provider.resolve(f"{published.reference}@{published.digest}")
        assert (pinned.digest, pinned.config) == (published.digest, READ)

    async def test_an_unknown_image_is_not_found(self, provider: ImageProvider, published: Published) -> None:
        """NotFoundError: no such service or image; a service's name lists near matches, a recipe that is not built
        says how to build it."""
        for reference in (f"{published.reference}-not", "no-such-service"):
            with pytest.raises(NotFoundError):
                await provider.resolve(reference)

    async def test_a_configuration_with_a_wrong_digest_is_refused(
        self, provider: ImageProvider, source: ImageSource, published: Published
    ) -> None:
        """ImageError: it cannot be reached, has a wrong digest, or is broken."""
        source.damage(published.configuration)
        with pytest.raises(ImageError):
            await provider.resolve(published.reference)

    async def test_services_of_the_catalogue_can_be_resolved(self, provider: ImageProvider) -> None:
        """The services this provider knows by name."""
        entries = await provider.catalog()
        assert len({entry.service for entry in entries}) == len(entries)
        for entry in [entry for entry in entries if entry.built][:3]:
            assert (await provider.resolve(entry.service)).digest

    # Unpacking

    async def test_an_image_is_unpacked(self, provider: ImageProvider, published: Published) -> None:
        """Fetch, verify and unpack what is missing of the image."""
        unpacked = await self.ensured(provider, published.reference)
        assert (unpacked.image.digest, unpacked.image.config) == (published.digest, READ)
        self.check_whole(unpacked)

    async def test_what_a_layer_removes_is_whited_out(self, provider: ImageProvider, source: ImageSource) -> None:
        """Folders, lowest first, with overlayfs whiteouts; read-only for everyone."""
        published = source.publish("v2", BASE, {"etc/.wh.both": b""}, config={})
        unpacked = await self.ensured(provider, published.reference)
        assert files_of(unpacked) == {"etc/base": b"base"}

    async def test_layers_are_shared(self, provider: ImageProvider, source: ImageSource, published: Published) -> None:
        """Layers are unpacked once and shared."""
        other = source.publish("v2", BASE, {"another": b"top"}, config={})
        one, two = [await self.ensured(provider, image.reference) for image in (published, other)]
        assert set(one.layers) & set(two.layers)
        assert files_of(two) == BASE | {"another": b"top"}
        assert (await self.ensured(provider, published.reference)).layers == one.layers

    async def test_an_image_that_is_here_needs_no_source(
        self, provider: ImageProvider, source: ImageSource, published: Published
    ) -> None:
        """The image with that manifest digest, without any network, if all of it is here."""
        unpacked = await self.ensured(provider, published.reference)
        source.withdraw()
        found = await provider.local(published.digest)
        assert (found.layers, found.image.config) == (unpacked.layers, READ)
        self.check_whole(found)

    async def test_an_image_is_here_for_the_next_server(
        self, make_provider: Callable[[], ImageProvider], source: ImageSource, published: Published
    ) -> None:
        """The image with that manifest digest, without any network, if all of it is here."""
        async with make_provider() as first:
            unpacked = await self.ensured(first, published.reference)
        source.withdraw()
        async with make_provider() as second:
            found = await second.local(published.digest)
        assert (found.layers, found.image.config) == (unpacked.layers, READ)
        self.check_whole(found)

    async def test_an_image_that_is_not_here_is_not_found(self, provider: ImageProvider, published: Published) -> None:
        """NotFoundError: it is not here whole."""
        for digest in (published.digest, Digest("sha256:" + "0" * 64)):
            with pytest.raises(NotFoundError):
                await provider.local(digest)

    async def test_one_image_is_ensured_by_many_at_once(self, provider: ImageProvider, published: Published) -> None:
        """Concurrent calls for one layer share the work."""
        image = await provider.resolve(published.reference)
        found: list[UnpackedImage] = []

        async def ensure() -> None:
            found.append(await provider.ensure(image))

        with trio.fail_after(LIMIT_SECONDS):
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(ensure)
        assert [each.layers for each in found] == [found[0].layers] * 5
        self.check_whole(found[0])

    @pytest.mark.parametrize("steps", [1, 4, 16, 64])
    async def test_who_gives_up_disturbs_no_other(
        self, provider: ImageProvider, published: Published, steps: int
    ) -> None:
        """Concurrent calls for one layer share the work."""
        image = await provider.resolve(published.reference)
        found: list[UnpackedImage] = []

        async def ensure(scope: trio.CancelScope) -> None:
            with scope:
                found.append(await provider.ensure(image))

        first = trio.CancelScope()
        with trio.fail_after(LIMIT_SECONDS):
            async with trio.open_nursery() as nursery:
                for scope in (first, trio.CancelScope(), trio.CancelScope()):
                    nursery.start_soon(ensure, scope)
                    await trio.lowlevel.checkpoint()
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                first.cancel()
        assert len(found) >= 2
        for unpacked in found:
            self.check_whole(unpacked)

    async def test_progress_is_reported(self, provider: ImageProvider, published: Published) -> None:
        """Called often and cheaply while layers arrive; must not block."""
        done: dict[Digest, tuple[int, int]] = {}

        def report(*, done_bytes: int, total_bytes: int, layer: Digest) -> None:
            assert done.get(layer, (0, 0))[0] <= done_bytes <= total_bytes
            done[layer] = (done_bytes, total_bytes)

        await provider.ensure(await provider.resolve(published.reference), progress=report)
        assert done
        assert all(so_far == total for so_far, total in done.values())
        assert sum(total for _, total in done.values()) == published.size_bytes

    @pytest.mark.parametrize("number", [0, 1], ids=["lower", "upper"])
    async def test_a_layer_with_a_wrong_digest_is_never_used(
        self, provider: ImageProvider, source: ImageSource, published: Published, number: int
    ) -> None:
        """ImageError: digest, size or diff_id is wrong, or a layer breaks a rule; names the layer and the entry."""
        image = await provider.resolve(published.reference)
        source.damage(published.layers[number])
        for _ in range(2):
            with pytest.raises(ImageError) as caught:
                await provider.ensure(image)
            assert published.layers[number] in str(caught.value)
        with pytest.raises(NotFoundError):
            await provider.local(published.digest)

    async def test_a_cancelled_ensure_leaves_nothing_half(self, provider: ImageProvider, published: Published) -> None:
        """A cancelled call leaves nothing behind, or something that calling it again, ``list`` and ``remove`` put
        right; the provider stays usable."""
        image = await provider.resolve(published.reference)

        async def look() -> None:
            try:
                self.check_whole(await provider.local(published.digest))
            except NotFoundError:
                pass
            await provider.collect(set())

        await cancel_at_every_await(lambda: provider.ensure(image), look)
        self.check_whole(await provider.ensure(image))

    async def test_a_killed_ensure_heals(self, make_provider: Callable[[], ImageProvider], source: ImageSource) -> None:
        """A crash in the middle heals: a layer is used only when whole."""
        large = {"large": random.Random(1).randbytes(4 << 20)}
        published = source.publish("large", BASE, large, config={})

        async def ensure(provider: ImageProvider, tell: Callable[[str], None]) -> None:
            image = await provider.resolve(published.reference)
            await provider.ensure(image, progress=lambda **_: tell("some bytes"))

        for killed_after in (1, 2, 0):
            await self.end_abruptly(make_provider, ensure, after=killed_after)
            async with make_provider() as provider:
                unpacked = await self.ensured(provider, published.reference)
                assert files_of(unpacked) == BASE | large
                assert (await provider.local(published.digest)).layers == unpacked.layers
                await provider.collect(set())

    # Collecting

    async def test_what_nobody_uses_is_removed(
        self, provider: ImageProvider, source: ImageSource, published: Published
    ) -> None:
        """Remove images whose manifest digest is not in ``in_use``, and layers nobody needs; returns what went."""
        other = source.publish("v2", BASE, {"another": b"top"}, config={})
        used, _ = [await self.ensured(provider, image.reference) for image in (other, published)]
        assert list(await provider.collect({other.digest, published.digest})) == []
        assert list(await provider.collect({other.digest})) == [published.digest]
        assert (await provider.local(other.digest)).layers == used.layers
        assert files_of(used) == BASE | {"another": b"top"}
        with pytest.raises(NotFoundError):
            await provider.local(published.digest)
        self.check_whole(await self.ensured(provider, published.reference))

    async def test_layers_that_nobody_needs_are_removed(self, provider: ImageProvider, published: Published) -> None:
        """Remove images whose manifest digest is not in ``in_use``, and layers nobody needs; returns what went."""
        unpacked = await self.ensured(provider, published.reference)
        await provider.collect(set())
        assert not any(layer.exists() for layer in unpacked.layers)

    async def test_what_was_asked_for_lately_stays(self, provider: ImageProvider, published: Published) -> None:
        """Images that were resolved, ensured or looked up less than ``idle_seconds`` ago stay: a plan may hold one that
        is not stored yet."""
        await self.ensured(provider, published.reference)
        assert list(await provider.collect(set(), idle_seconds=3600)) == []
        self.check_whole(await provider.local(published.digest))


def files_of(unpacked: UnpackedImage) -> dict[str, bytes]:
    """The files of the layers as overlayfs shows them: an upper one hides a lower one, a whiteout removes it."""
    found: dict[str, bytes] = {}
    for layer in unpacked.layers:
        assert layer.is_dir()
        for path in layer.rglob("*"):
            name, status = str(path.relative_to(layer)), path.lstat()
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == WHITEOUT:
                found.pop(name, None)
            elif path.is_file():
                found[name] = path.read_bytes()
    return found
