"""What every volume provider must keep."""

from __future__ import annotations

import contextlib
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import attrs
import pytest
import trio

from nanocloud.errors import InvalidError, NotFoundError, UnavailableError, VolumeFullError
from nanocloud.providers.volume import VolumeId, VolumeProvider, VolumeSpec, VolumeStatus
from nanocloud.testkit.suites.base import ProviderSuite
from nanocloud.testkit.suites.cancelling import cancel_at_every_await

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = VolumeId("shop.data-db-0")
OTHER = VolumeId("other")


class VolumeProviderSuite(ProviderSuite[VolumeProvider]):
    contract = "volume"
    size_bytes: ClassVar[int] = 32 * 1024**2
    too_large_bytes: ClassVar[int] = 8 * 1024**4
    """More than any machine has that runs the suite."""

    def spec(self, volume: VolumeId = DATA) -> VolumeSpec:
        return VolumeSpec(id=volume, size_bytes=self.size_bytes)

    async def test_fresh_volume_is_listed_and_not_published(self, provider: VolumeProvider) -> None:
        """Where its root is mounted on the host; None while nobody uses it."""
        made = await provider.create(self.spec())
        assert made == VolumeStatus(
            id=DATA, size_bytes=self.size_bytes, fs_type="ext4", used_bytes=None, published_path=None, consumers=()
        )
        assert await provider.list() == [made]

    async def test_same_spec_again_returns_the_volume(self, provider: VolumeProvider) -> None:
        """The same spec again returns the volume."""
        made = await provider.create(self.spec())
        assert await provider.create(self.spec()) == made
        path = await provider.publish(DATA, consumer="web")
        assert (await provider.create(self.spec())).published_path == path
        await provider.unpublish(DATA, consumer="web")

    async def test_concurrent_calls_for_one_volume_agree(self, provider: VolumeProvider) -> None:
        """Calls for one volume may overlap."""
        paths: list[Path] = []

        async def claim(consumer: str) -> None:
            await provider.create(self.spec())
            paths.append(await provider.publish(DATA, consumer=consumer))

        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(claim, f"web-{number}")
        [status] = await provider.list()
        assert set(paths) == {status.published_path}
        assert status.consumers == ("web-0", "web-1", "web-2", "web-3")
        for consumer in status.consumers:
            await provider.unpublish(DATA, consumer=consumer)

    async def test_who_comes_while_another_goes_has_the_volume(self, provider: VolumeProvider) -> None:
        """Calls for one volume may overlap."""
        await provider.create(self.spec())
        ((await provider.publish(DATA, consumer="web-0")) / "data").write_text("kept")
        rounds = 20  # trio draws who of two is first
        for number in range(rounds):
            goes, comes = f"web-{number}", f"web-{number + 1}"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(provider.unpublish, DATA, consumer=goes))
                nursery.start_soon(partial(provider.publish, DATA, consumer=comes))
            [status] = await provider.list()
            assert status.consumers == (comes,)
            assert status.published_path is not None
            assert (status.published_path / "data").read_text() == "kept"
        await provider.unpublish(DATA, consumer=f"web-{rounds}")

    async def test_the_longest_ids_are_told_apart(self, provider: VolumeProvider) -> None:
        """``[a-z0-9][a-z0-9.-]{0,127}``; unique on the node, chosen by the caller."""
        volumes = [VolumeId("long.name-" + "x" * 117 + last) for last in "ab"]
        for volume in volumes:
            await provider.create(self.spec(volume))
            ((await provider.publish(volume, consumer="web")) / "data").write_text(volume)
        assert [status.id for status in await provider.list()] == volumes
        for volume in volumes:
            assert ((await provider.publish(volume, consumer="job")) / "data").read_text() == volume
            for consumer in ("web", "job"):
                await provider.unpublish(volume, consumer=consumer)

    async def test_other_size_for_an_id_is_refused(self, provider: VolumeProvider) -> None:
        """InvalidError: the id exists with another size or file system."""
        made = await provider.create(self.spec())
        with pytest.raises(InvalidError, match=DATA):
            await provider.create(attrs.evolve(self.spec(), size_bytes=2 * self.size_bytes))
        assert await provider.list() == [made]

    @pytest.mark.parametrize(
        "spec",
        [
            VolumeSpec(id=DATA, size_bytes=0),
            VolumeSpec(id=DATA, size_bytes=-1),
            VolumeSpec(id=DATA, size_bytes=32 * 1024**2, fs_type="no such file system"),
            VolumeSpec(id=VolumeId("../escape"), size_bytes=32 * 1024**2),
            VolumeSpec(id=VolumeId("Upper"), size_bytes=32 * 1024**2),
            VolumeSpec(id=VolumeId("x" * 129), size_bytes=32 * 1024**2),
            VolumeSpec(id=VolumeId(""), size_bytes=32 * 1024**2),
            VolumeSpec(id=VolumeId("data\n"), size_bytes=32 * 1024**2),
        ],
        ids=["no-size", "negative-size", "file-system", "path", "upper-case", "too-long", "empty", "line"],
    )
    async def test_what_cannot_be_is_refused_and_makes_nothing(
        self, provider: VolumeProvider, spec: VolumeSpec
    ) -> None:
        """InvalidError: an id, size or file system that cannot be."""
        with pytest.raises(InvalidError):
            await provider.create(spec)
        assert list(await provider.list()) == []

    async def test_more_than_the_host_has_is_refused_and_makes_nothing(self, provider: VolumeProvider) -> None:
        """VolumeFullError: the host has not that much room; names both sizes."""
        with pytest.raises(VolumeFullError, match=rf"{self.too_large_bytes}.*\d"):
            await provider.create(attrs.evolve(self.spec(), size_bytes=self.too_large_bytes))
        assert list(await provider.list()) == []

    async def test_publishing_repeats(self, provider: VolumeProvider) -> None:
        """Repeats safely for a consumer."""
        await provider.create(self.spec())
        path = await provider.publish(DATA, consumer="web")
        assert await provider.publish(DATA, consumer="web") == path
        [status] = await provider.list()
        assert status.consumers == ("web",)
        await provider.unpublish(DATA, consumer="web")

    async def test_publishing_mounts_once_for_all_consumers(self, provider: VolumeProvider) -> None:
        """All consumers get the same path."""
        await provider.create(self.spec())
        path = await provider.publish(DATA, consumer="web")
        assert await provider.publish(DATA, consumer="job") == path
        [status] = await provider.list()
        assert (status.published_path, status.consumers) == (path, ("job", "web"))
        for consumer in ("web", "job"):
            await provider.unpublish(DATA, consumer=consumer)

    async def test_a_volume_is_a_file_system_of_its_own(self, provider: VolumeProvider) -> None:
        """Mount the volume (nosuid, nodev) and return the host path of its root."""
        await provider.create(self.spec())
        path = await provider.publish(DATA, consumer="web")
        assert path.is_mount()
        assert os.statvfs(path).f_flag & (os.ST_NOSUID | os.ST_NODEV) == os.ST_NOSUID | os.ST_NODEV
        await provider.unpublish(DATA, consumer="web")

    async def test_used_bytes_are_told_while_it_is_published(self, provider: VolumeProvider) -> None:
        """None while it is not published."""
        await provider.create(self.spec())
        path = await provider.publish(DATA, consumer="web")
        [before] = await provider.list()
        with (path / "data").open("wb") as data:
            data.write(bytes(3 << 20))
            data.flush()
            os.fsync(data.fileno())  # space may be counted only once it is taken on the disk
        [after] = await provider.list()
        assert before.used_bytes is not None
        assert after.used_bytes is not None
        assert after.used_bytes - before.used_bytes >= 3 << 20
        await provider.unpublish(DATA, consumer="web")
        [unpublished] = await provider.list()
        assert unpublished.used_bytes is None

    async def test_last_consumer_unmounts(self, provider: VolumeProvider) -> None:
        """Drop the consumer; without consumers the volume is unmounted. Unknown consumers are no error."""
        await provider.create(self.spec())
        path = await provider.publish(DATA, consumer="web")
        await provider.publish(DATA, consumer="job")
        await provider.unpublish(DATA, consumer="web")
        await provider.unpublish(DATA, consumer="never-came")
        [status] = await provider.list()
        assert (status.published_path, status.consumers) == (path, ("job",))
        await provider.unpublish(DATA, consumer="job")
        [status] = await provider.list()
        assert (status.published_path, status.consumers) == (None, ())
        await provider.unpublish(DATA, consumer="job")

    async def test_fresh_volume_is_empty_and_keeps_what_is_written(self, provider: VolumeProvider) -> None:
        """A fresh volume is empty; what was written is there again."""
        await provider.create(self.spec())
        path = await provider.publish(DATA, consumer="web")
        assert os.listdir(path) == []
        (path / "data").write_text("kept")
        await provider.unpublish(DATA, consumer="web")
        assert ((await provider.publish(DATA, consumer="job")) / "data").read_text() == "kept"
        await provider.unpublish(DATA, consumer="job")

    async def test_limit_holds_for_what_is_written(self, provider: VolumeProvider) -> None:
        """Of the file system; the limit holds for what is written."""
        await provider.create(self.spec())
        await provider.create(self.spec(OTHER))
        path = await provider.publish(DATA, consumer="web")
        other = await provider.publish(OTHER, consumer="web")
        written = await trio.to_thread.run_sync(_fill, path / "data", self.size_bytes * 2)
        assert self.size_bytes * 0.95 <= written <= self.size_bytes * 1.1
        (other / "data").write_text("has room")
        for volume in (DATA, OTHER):
            await provider.unpublish(volume, consumer="web")

    async def test_used_volume_is_not_deleted(self, provider: VolumeProvider) -> None:
        """UnavailableError: a consumer still uses it; names the consumer."""
        await provider.create(self.spec())
        path = await provider.publish(DATA, consumer="web-7")
        (path / "data").write_text("kept")
        with pytest.raises(UnavailableError, match="web-7"):
            await provider.delete(DATA)
        assert (path / "data").read_text() == "kept"
        await provider.unpublish(DATA, consumer="web-7")

    async def test_deleted_volume_is_gone_with_its_data(self, provider: VolumeProvider) -> None:
        """Remove the volume and its data. Unknown ids are no error."""
        await provider.create(self.spec())
        await provider.create(self.spec(OTHER))
        ((await provider.publish(DATA, consumer="web")) / "data").write_text("gone")
        await provider.unpublish(DATA, consumer="web")
        await provider.delete(DATA)
        await provider.delete(DATA)
        assert [status.id for status in await provider.list()] == [OTHER]
        await provider.create(self.spec())
        assert os.listdir(await provider.publish(DATA, consumer="web")) == []
        await provider.unpublish(DATA, consumer="web")

    async def test_unknown_volume_is_not_found(self, provider: VolumeProvider) -> None:
        """Unknown ids raise NotFoundError unless a method says otherwise."""
        with pytest.raises(NotFoundError, match=OTHER):
            await provider.publish(OTHER, consumer="web")
        with pytest.raises(NotFoundError, match=OTHER):
            await provider.unpublish(OTHER, consumer="web")

    async def test_a_cancelled_create_makes_a_volume_or_none(self, provider: VolumeProvider) -> None:
        """Make the volume, whole or not at all."""

        async def look() -> None:
            assert [status.id for status in await provider.list()] in ([], [DATA])
            assert (await provider.create(self.spec())).size_bytes == self.size_bytes
            await provider.publish(DATA, consumer="web")
            await provider.unpublish(DATA, consumer="web")
            await provider.delete(DATA)
            assert list(await provider.list()) == []

        await cancel_at_every_await(lambda: provider.create(self.spec()), look)

    async def test_a_cancelled_publish_can_be_undone(self, provider: VolumeProvider) -> None:
        """A cancelled call leaves nothing behind, or something that calling it again, ``list`` and ``remove`` put
        right; the provider stays usable."""
        await provider.create(self.spec())

        async def look() -> None:
            [status] = await provider.list()
            assert status.consumers in ((), ("web",))
            assert (status.published_path is None) == (not status.consumers)
            await provider.unpublish(DATA, consumer="web")
            [status] = await provider.list()
            assert (status.published_path, status.consumers) == (None, ())

        await cancel_at_every_await(lambda: provider.publish(DATA, consumer="web"), look)
        await provider.delete(DATA)

    async def test_a_cancelled_unpublish_can_be_done_again(self, provider: VolumeProvider) -> None:
        """A cancelled call leaves nothing behind, or something that calling it again, ``list`` and ``remove`` put
        right; the provider stays usable."""
        await provider.create(self.spec())
        path = await provider.publish(DATA, consumer="web")

        async def look() -> None:
            [status] = await provider.list()
            assert (status.published_path is None) == (not status.consumers)
            await provider.unpublish(DATA, consumer="web")
            [status] = await provider.list()
            assert (status.published_path, status.consumers) == (None, ())
            assert await provider.publish(DATA, consumer="web") == path

        await cancel_at_every_await(lambda: provider.unpublish(DATA, consumer="web"), look)
        await provider.unpublish(DATA, consumer="web")

    async def test_a_cancelled_delete_can_be_done_again(self, provider: VolumeProvider) -> None:
        """A cancelled call leaves nothing behind, or something that calling it again, ``list`` and ``remove`` put
        right; the provider stays usable."""

        async def look() -> None:
            await provider.delete(DATA)
            assert list(await provider.list()) == []
            await provider.create(self.spec())
            assert os.listdir(await provider.publish(DATA, consumer="web")) == []
            await provider.unpublish(DATA, consumer="web")

        await provider.create(self.spec())
        await cancel_at_every_await(lambda: provider.delete(DATA), look)

    async def test_volumes_outlive_a_killed_server(self, make_provider: Callable[[], VolumeProvider]) -> None:
        """Entering is idempotent on the host: a node that was killed enters again and finds what it left."""

        async def write(provider: VolumeProvider, tell: Callable[[str], None]) -> None:
            await provider.create(self.spec())
            path = await provider.publish(DATA, consumer="web")
            (path / "data").write_text("kept")
            tell(repr(list(await provider.list())))
            await provider.create(self.spec(OTHER))

        [before] = await self.end_abruptly(make_provider, write, after=1)
        async with make_provider() as second:
            assert repr([status for status in await second.list() if status.id == DATA]) == before
            path = await second.publish(DATA, consumer="job")
            assert (path / "data").read_text() == "kept"
            await second.create(self.spec(OTHER))
            for consumer in ("web", "job"):
                await second.unpublish(DATA, consumer=consumer)

    async def test_mounts_outlive_the_server(self, make_provider: Callable[[], VolumeProvider]) -> None:
        """Leaving must not stop what outlives the server (containers, networks, mounts)."""
        async with make_provider() as first:
            await first.create(self.spec())
            path = await first.publish(DATA, consumer="web")
            (path / "data").write_text("kept")
            before = await first.list()
        assert (path / "data").read_text() == "kept"
        async with make_provider() as second:
            assert await second.list() == before
            assert await second.publish(DATA, consumer="job") == path
            for consumer in ("web", "job"):
                await second.unpublish(DATA, consumer=consumer)

    async def test_purge_removes_everything(self, make_provider: Callable[[], VolumeProvider]) -> None:
        """Remove every trace, of this provider's life and of earlier ones. Called on a provider that is not open;
        repeats safely."""
        async with make_provider() as first:
            await first.create(self.spec(OTHER))
            await first.create(self.spec())
            path = await first.publish(DATA, consumer="web")
        await self.purge(make_provider)
        assert not path.is_mount()
        async with make_provider() as second:
            assert list(await second.list()) == []


def _fill(file: Path, most_bytes: int) -> int:
    """Write until there is no room, or far too much was taken; how much there was."""
    with file.open("wb", buffering=0) as stream:
        with contextlib.suppress(OSError):
            for _ in range(0, most_bytes, 65536):
                stream.write(bytes(65536))
        os.fsync(stream.fileno())
    return file.stat().st_size
