"""The provider on the real kernel: sizes, limits, mount flags, restarts, and what it refuses."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from nanocloud.errors import (
    CorruptError,
    InvalidError,
    LockedError,
    NotFoundError,
    ProviderError,
    UnavailableError,
    VolumeFullError,
)
from nanocloud.providers.volume import VolumeId, VolumeSpec
from nanocloud_csi_loop import LoopVolumes, loop, mounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Attached = Callable[[], list[str]]

MIB = 1024**2
DB = VolumeId("shop-db.volume-1")

pytestmark = [
    pytest.mark.root,
]


def spec(volume: VolumeId = DB, size_bytes: int = 32 * MIB) -> VolumeSpec:
    return VolumeSpec(id=volume, size_bytes=size_bytes)


def entries(folder: Path) -> list[str] | None:
    """Names in the folder; None where there is no folder."""
    return sorted(entry.name for entry in folder.iterdir()) if folder.exists() else None


def permissions(path: Path) -> int:
    return path.stat().st_mode & 0o777


def fill(file: Path) -> int:
    """Write until the file system is full; the bytes that were taken and reached the disk."""
    with file.open("wb", buffering=0) as stream:
        with Path("/dev/zero").open("rb") as zeros, pytest.raises(OSError, match="No space left"):
            shutil.copyfileobj(zeros, stream, 65536)
        os.fsync(stream.fileno())
    return file.stat().st_size


def touch_many(folder: Path, count: int) -> None:
    for number in range(count):
        (folder / str(number)).touch()


@contextmanager
def held_as_by_a_check(image: Path) -> Iterator[None]:
    with image.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def small_host_disk(target: Path, *, size_bytes: int) -> Iterator[Path]:
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "none", str(target)], check=True)
    try:
        yield target
    finally:
        mounts.unmount(target)


@pytest.mark.parametrize("size_mib", [16, 20, 100, 800, 1024, 4096])
async def test_has_the_asked_size_and_not_much_more(volumes: LoopVolumes, size_mib: int) -> None:
    size = size_mib * MIB
    await volumes.create(spec(size_bytes=size))
    path = await volumes.publish(DB, consumer="web")
    disk = os.statvfs(path)
    assert disk.f_bavail * disk.f_frsize >= size
    assert disk.f_blocks * disk.f_frsize <= size * 1.04


async def test_limit_holds_and_a_full_volume_keeps_what_it_took(volumes: LoopVolumes) -> None:
    await volumes.create(spec(size_bytes=16 * MIB))
    path = await volumes.publish(DB, consumer="web")
    written = await trio.to_thread.run_sync(fill, path / "data")
    assert 16 * MIB * 0.99 <= written <= 16 * MIB * 1.04
    await volumes.unpublish(DB, consumer="web")
    path = await volumes.publish(DB, consumer="web")
    assert (path / "data").stat().st_size == written


async def test_inodes_run_out_before_they_hurt_the_host(volumes: LoopVolumes) -> None:
    await volumes.create(spec(size_bytes=16 * MIB))
    path = await volumes.publish(DB, consumer="web")
    with pytest.raises(OSError, match="No space left"):
        await trio.to_thread.run_sync(touch_many, path, 5000)


async def test_is_mounted_nosuid_and_nodev(volumes: LoopVolumes) -> None:
    await volumes.create(spec())
    path = await volumes.publish(DB, consumer="web")
    mounted = mounts.table()[path]
    assert {"nosuid", "nodev", "rw"} <= mounted.options
    assert mounted.fs_type == "ext4"


async def test_fresh_volume_is_empty(volumes: LoopVolumes) -> None:
    await volumes.create(spec())
    assert entries(await volumes.publish(DB, consumer="web")) == []


async def test_what_a_check_saved_in_lost_and_found_stays(volumes: LoopVolumes) -> None:
    await volumes.create(spec())
    path = await volumes.publish(DB, consumer="web")
    (path / "lost+found").mkdir()
    (path / "lost+found" / "#12").write_text("saved")
    await volumes.unpublish(DB, consumer="web")
    path = await volumes.publish(DB, consumer="web")
    assert (path / "lost+found" / "#12").read_text() == "saved"


async def test_image_is_sparse_and_private(volumes: LoopVolumes, root: Path) -> None:
    await volumes.create(spec(size_bytes=1024 * MIB))
    image = (root / DB / "volume.img").stat()
    assert image.st_blocks * 512 < 4 * MIB
    assert permissions(root / DB / "volume.img") == 0o600
    assert permissions(root) == permissions(root / DB) == 0o700


async def test_loop_device_goes_with_the_mount(volumes: LoopVolumes, root: Path, attached: Attached) -> None:
    await volumes.create(spec())
    assert attached() == []
    await volumes.publish(DB, consumer="web")
    assert attached() == [str(root / DB / "volume.img")]
    await volumes.unpublish(DB, consumer="web")
    assert attached() == []


async def test_more_volumes_than_loop_nodes_of_before(volumes: LoopVolumes, attached: Attached) -> None:
    ids = [VolumeId(f"v{number}") for number in range(12)]
    async with trio.open_nursery() as nursery:
        for id_ in ids:

            async def make_and_mount(id_: VolumeId = id_) -> None:
                await volumes.create(spec(id_, 16 * MIB))
                await volumes.publish(id_, consumer="web")

            nursery.start_soon(make_and_mount)
    assert len(attached()) == 12
    assert [status.id for status in await volumes.list()] == sorted(ids)


async def test_data_mount_and_consumers_outlive_the_provider(root: Path) -> None:
    async with LoopVolumes(root) as volumes:
        await volumes.create(spec())
        path = await volumes.publish(DB, consumer="web")
        (path / "data").write_text("kept")
    assert (path / "data").read_text() == "kept"
    async with LoopVolumes(root) as volumes:
        [status] = await volumes.list()
        assert (status.published_path, status.consumers) == (path, ("web",))
        await volumes.unpublish(DB, consumer="web")
        assert (await volumes.publish(DB, consumer="job") / "data").read_text() == "kept"


async def test_after_a_reboot_nothing_is_mounted_and_old_consumers_are_void(root: Path) -> None:
    async with LoopVolumes(root) as volumes:
        await volumes.create(spec())
        path = await volumes.publish(DB, consumer="web")
    mounts.unmount(path)  # what a reboot does
    async with LoopVolumes(root) as volumes:
        [status] = await volumes.list()
        assert (status.published_path, status.consumers) == (None, ())
        await volumes.publish(DB, consumer="job")
        [status] = await volumes.list()
        assert status.consumers == ("job",)


async def test_mount_that_nobody_asked_for_is_undone_on_start(root: Path, attached: Attached) -> None:
    async with LoopVolumes(root) as volumes:
        await volumes.create(spec())
        await volumes.publish(DB, consumer="web")
        (root / DB / "consumers.json").unlink()  # killed between the mount and the record
    async with LoopVolumes(root) as volumes:
        [status] = await volumes.list()
        assert status.published_path is None
        assert attached() == []


async def test_leftovers_are_collected_on_start(root: Path) -> None:
    for name in (".new-a", ".gone-b"):
        (root / name / "mount").mkdir(parents=True)
        (root / name / "volume.img").write_bytes(b"half")
    async with LoopVolumes(root) as volumes:
        assert await volumes.list() == []
        assert entries(root) == []


async def holding(path: Path, inside: Path, nursery: trio.Nursery) -> trio.Process:
    """As a container does: its own mount namespace keeps the file system mounted, at a place of its own."""
    script = 'mount --bind "$1" "$2" && echo ready; read _'
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(path), str(inside)]
    process = await trio.lowlevel.open_process(argv, stdin=-1, stdout=-1)
    nursery.start_soon(process.wait)
    assert process.stdout is not None
    assert await process.stdout.receive_some() == b"ready\n"
    return process


async def test_mount_alive_in_another_namespace_is_shared_not_doubled(
    volumes: LoopVolumes, root: Path, attached: Attached, tmp_path: Path
) -> None:
    await volumes.create(spec())
    path = await volumes.publish(DB, consumer="web")
    inside = tmp_path / "inside"
    inside.mkdir()
    async with trio.open_nursery() as nursery:
        process = await holding(path, inside, nursery)
        try:
            await volumes.unpublish(DB, consumer="web")
            assert len(attached()) == 1
            with pytest.raises(UnavailableError, match="has not ended yet"):
                await volumes.delete(DB)
            (await volumes.publish(DB, consumer="web") / "data").write_text("one file system")
            assert len(attached()) == 1
            await volumes.unpublish(DB, consumer="web")
        finally:
            process.terminate()
    assert (await volumes.publish(DB, consumer="web") / "data").read_text() == "one file system"
    assert path == root / DB / "mount"


async def test_program_that_copied_the_mounts_of_the_host_holds_no_volume(
    volumes: LoopVolumes, root: Path, attached: Attached
) -> None:
    await volumes.create(spec())
    path = await volumes.publish(DB, consumer="web")
    async with trio.open_nursery() as nursery:
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo ready; read _"]
        process = await trio.lowlevel.open_process(argv, stdin=-1, stdout=-1)
        nursery.start_soon(process.wait)
        assert process.stdout is not None
        assert await process.stdout.receive_some() == b"ready\n"
        try:
            await volumes.unpublish(DB, consumer="web")
            assert attached() == []
            assert await volumes.publish(DB, consumer="web") == path
            await volumes.unpublish(DB, consumer="web")
            await volumes.delete(DB)
        finally:
            process.terminate()


async def test_unclean_file_system_is_checked_before_it_is_mounted(volumes: LoopVolumes, root: Path) -> None:
    await volumes.create(spec())
    path = await volumes.publish(DB, consumer="web")
    (path / "data").write_text("kept")
    os.sync()
    image = root / DB / "volume.img"
    crashed = image.read_bytes()  # the disk as a power loss leaves it: the journal has to be replayed
    await volumes.unpublish(DB, consumer="web")
    image.write_bytes(crashed)
    path = await volumes.publish(DB, consumer="web")
    assert (path / "data").read_text() == "kept"


async def test_running_check_of_before_keeps_the_image_from_being_mounted(volumes: LoopVolumes, root: Path) -> None:
    await volumes.create(spec())
    with held_as_by_a_check(root / DB / "volume.img"), pytest.raises(UnavailableError, match="still being checked"):
        await volumes.publish(DB, consumer="web")
    await volumes.publish(DB, consumer="web")


async def test_broken_image_is_an_error_that_names_it(volumes: LoopVolumes, root: Path, attached: Attached) -> None:
    await volumes.create(spec())
    os.truncate(root / DB / "volume.img", 0)
    with pytest.raises(CorruptError, match=r"volume\.img holds no ext4"):
        await volumes.publish(DB, consumer="web")
    assert attached() == []


async def test_broken_record_hides_only_its_volume(volumes: LoopVolumes, root: Path) -> None:
    await volumes.create(spec())
    await volumes.create(spec(VolumeId("other")))
    (root / DB / "volume.json").write_text("{")
    assert [status.id for status in await volumes.list()] == ["other"]
    with pytest.raises(CorruptError, match=DB):
        await volumes.publish(DB, consumer="web")
    await volumes.delete(DB)
    assert not (root / DB).exists()


async def test_no_room_on_the_host_names_both_sizes(volumes: LoopVolumes, root: Path) -> None:
    free = os.statvfs(root).f_bavail * os.statvfs(root).f_frsize
    with pytest.raises(VolumeFullError, match=rf"\({free * 2} bytes\) needs .* has .*\(\d+ bytes\)"):
        await volumes.create(spec(size_bytes=free * 2))
    assert entries(root) == []


async def test_what_is_promised_to_one_volume_is_not_promised_again(root: Path) -> None:
    async with LoopVolumes(root) as volumes:
        size = int(os.statvfs(root).f_bavail * os.statvfs(root).f_frsize * 0.6)
        await volumes.create(spec(size_bytes=size))
        with pytest.raises(VolumeFullError, match="not promised to other volumes"):
            await volumes.create(spec(VolumeId("second"), size))
    async with LoopVolumes(root, overcommit=True) as volumes:
        await volumes.create(spec(VolumeId("second"), size))


async def test_host_that_fills_up_while_a_volume_is_made_leaves_nothing(tmp_path: Path) -> None:
    with small_host_disk(tmp_path / "disk", size_bytes=16 * 1024) as disk:
        async with LoopVolumes(disk / "volumes", overcommit=True) as volumes:
            volumes._folders.room = lambda *, overcommit: 10**12  # type: ignore[method-assign]  # free until a moment ago
            with pytest.raises(ProviderError, match=f"making volume {DB} failed"):
                await volumes.create(spec())
            assert entries(disk / "volumes") == []


@pytest.mark.parametrize("size_bytes", [16 * MIB, 33 * MIB])
async def test_other_size_for_an_id_that_exists_is_refused(volumes: LoopVolumes, size_bytes: int) -> None:
    await volumes.create(spec())
    with pytest.raises(InvalidError, match="exists with 33554432") as caught:
        await volumes.create(spec(size_bytes=size_bytes))
    assert [cause.field for cause in caught.value.causes] == ["size_bytes"]


async def test_busy_mount_is_a_clear_error_and_the_consumer_stays(volumes: LoopVolumes) -> None:
    await volumes.create(spec())
    path = await volumes.publish(DB, consumer="web")
    with (path / "open").open("w"), pytest.raises(UnavailableError, match="is busy") as caught:
        await volumes.unpublish(DB, consumer="web")
    assert "fuser" in caught.value.hint
    [status] = await volumes.list()
    assert status.consumers == ("web",)
    await volumes.unpublish(DB, consumer="web")


async def test_foreign_mount_in_the_way_is_named(volumes: LoopVolumes, root: Path) -> None:
    await volumes.create(spec())
    mounts.mount(Path("none"), root / DB / "mount", "tmpfs")
    with pytest.raises(ProviderError, match="something else is mounted"):
        await volumes.publish(DB, consumer="web")
    mounts.unmount(root / DB / "mount")


async def test_two_providers_never_share_a_folder(volumes: LoopVolumes, root: Path) -> None:
    with pytest.raises(LockedError, match="in use by another process"):
        async with LoopVolumes(root):
            pass
    with pytest.raises(LockedError, match="in use by another process"):
        await LoopVolumes(root).purge()


async def test_purge_takes_everything_and_repeats(root: Path, attached: Attached) -> None:
    async with LoopVolumes(root) as volumes:
        await volumes.create(spec())
        await volumes.create(spec(VolumeId("other")))
        await volumes.publish(DB, consumer="web")
    for _ in range(2):
        await LoopVolumes(root).purge()
        assert entries(root) is None
        assert attached() == []


async def test_purge_waits_for_containers_that_are_about_to_end(
    root: Path, attached: Attached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    async with LoopVolumes(root) as volumes:
        await volumes.create(spec())
        path = await volumes.publish(DB, consumer="web")
    async with trio.open_nursery() as nursery:
        process = await holding(path, inside, nursery)
        looked = loop.devices_of

        def look_and_end(image: Path) -> list[int]:
            found = looked(image)
            process.terminate()
            return found

        monkeypatch.setattr(loop, "devices_of", look_and_end)
        await LoopVolumes(root).purge()
    assert entries(root) is None
    assert attached() == []


async def test_purge_keeps_what_it_never_made(root: Path) -> None:
    async with LoopVolumes(root) as volumes:
        await volumes.create(spec())
    (root / "notes.txt").write_text("mine")
    await LoopVolumes(root).purge()
    assert entries(root) == ["notes.txt"]


async def test_cancelled_create_leaves_nothing(volumes: LoopVolumes, root: Path) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(volumes.create, spec())
            while not (root / f".new-{DB}").exists():
                await trio.lowlevel.checkpoint()
            scope.cancel()
    assert entries(root) == []
    await volumes.create(spec())


async def test_root_behind_a_symlink_works(tmp_path: Path, root: Path, attached: Attached) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    async with LoopVolumes(tmp_path / "link" / root.name) as volumes:
        await volumes.create(spec())
        assert await volumes.publish(DB, consumer="web") == root / DB / "mount"
        await volumes.publish(DB, consumer="job")
        await volumes.unpublish(DB, consumer="web")
        await volumes.unpublish(DB, consumer="job")
        assert attached() == []


async def test_same_image_is_never_attached_twice(volumes: LoopVolumes, root: Path) -> None:
    await volumes.create(spec())
    image = root / DB / "volume.img"
    with loop.attached(image) as first, loop.attached(image) as second:
        assert first.number == second.number
    assert loop.devices_of(image) == []


async def test_unknown_volume_to_publish_is_not_found(volumes: LoopVolumes) -> None:
    with pytest.raises(NotFoundError, match="volume nothing does not exist"):
        await volumes.publish(VolumeId("nothing"), consumer="web")


async def test_the_mount_of_one_folder_is_found_whatever_its_name(tmp_path: Path) -> None:
    odd = tmp_path / "a b\tc\\d"
    odd.mkdir()
    mounts.mount(Path("none"), odd, "tmpfs")
    try:
        assert mounts.table(only=odd) == {odd: mounts.table()[odd]}
        assert mounts.table(only=tmp_path) == {}
    finally:
        mounts.unmount(odd)
