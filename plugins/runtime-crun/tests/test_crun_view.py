"""A container keeps nothing of the host busy but what it uses itself, and shows the host nothing of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from nanocloud.providers.runtime import ContainerId, Mount
from nanocloud_runtime_crun import _syscalls
from nanocloud_runtime_crun.host import fs_type_of
from nanocloud_runtime_crun.view import mount_points, needed_mounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nanocloud.providers.runtime import ContainerSpec
    from nanocloud_runtime_crun.runtime import CrunRuntime

    Build = Callable[..., ContainerSpec]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

C = ContainerId("c")
LOOP_CLR_FD, LOOP_SET_FD, LOOP_CTL_GET_FREE = 0x4C01, 0x4C00, 0x4C82

MOUNTINFO = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 27 0:27 / /var/lib/with\\040space rw master:2 - xfs /dev/vdb rw
31 27 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
33 27 0:30 / /volumes/a rw - ext4 /dev/loop0 rw
34 27 0:31 / /run rw - tmpfs tmpfs rw
35 34 0:31 / /run/nanocloud/runtime rw - tmpfs nanocloud-runtime rw
36 27 0:32 / /usr rw - ext4 /dev/vdc rw
"""


def test_mount_points_are_unescaped_and_parents_first() -> None:
    points = mount_points(MOUNTINFO)
    assert "/var/lib/with space" in points
    assert points.index("/run") < points.index("/run/nanocloud/runtime")


def test_only_mounts_on_the_way_are_needed() -> None:
    paths = ["/usr", "/usr/bin/crun", "/proc", "/run/nanocloud/runtime"]
    needed = needed_mounts(mount_points(MOUNTINFO), paths, "/sys/fs/cgroup")
    assert set(needed) == {
        "/proc",
        "/run",
        "/usr",
        "/run/nanocloud/runtime",
        "/sys/fs/cgroup",
        "/sys/fs/cgroup/cpu",
    }


def test_file_system_of_a_path_is_that_of_the_nearest_mount() -> None:
    assert fs_type_of(Path("/run/nanocloud/runtime/x"), MOUNTINFO) == "tmpfs"
    assert fs_type_of(Path("/var/lib/with space/x"), MOUNTINFO) == "xfs"
    assert fs_type_of(Path("/var/lib/with"), MOUNTINFO) == "ext4"
    assert fs_type_of(Path("/"), MOUNTINFO) == "ext4"


@pytest.fixture
def volumes(tmp_path: Path) -> Iterator[dict[str, tuple[Path, str]]]:
    """Two file systems on loop devices that go with their last mount: name -> folder and device."""
    made: dict[str, tuple[Path, str]] = {}
    try:
        for name in ("a", "b"):
            image, folder = tmp_path / f"{name}.img", tmp_path / f"volume-{name}"
            folder.mkdir()
            with image.open("wb") as file:
                file.truncate(8 << 20)
            subprocess.run(["mkfs.ext4", "-q", image], check=True)
            subprocess.run(["mount", "-o", "loop", image, folder], check=True)
            made[name] = (folder, _device_of(image))
        yield made
    finally:
        for folder, _ in made.values():
            subprocess.run(["umount", "-q", folder], check=False)


def _device_of(image: Path) -> str:
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        if file.read_text().strip() == str(image):
            return file.parent.parent.name
    return ""


async def _until_free(image: Path) -> bool:
    """The kernel lets go of a device a moment after the last mount."""
    for _ in range(200):
        if not _device_of(image):
            return True
        await trio.to_thread.run_sync(os.sync)
    return False


@needs_root
@pytest.mark.root
async def test_volume_is_free_when_its_own_users_are_gone(
    runtime: CrunRuntime, spec: Build, volumes: dict[str, tuple[Path, str]], tmp_path: Path
) -> None:
    """A container that uses ``a`` was made while ``b`` was mounted; ``b`` must not know of it."""
    with trio.fail_after(60):
        await runtime.create(spec(mounts=(Mount(source=volumes["a"][0], target="/data"),)))
        await runtime.start(C)
        _syscalls.umount(str(volumes["b"][0]))
        assert await _until_free(tmp_path / "b.img")
        _syscalls.umount(str(volumes["a"][0]))
        assert _device_of(tmp_path / "a.img")
        await runtime.stop(C, grace_seconds=0)
        assert await _until_free(tmp_path / "a.img")


def _mount_table(process: int | str = "self") -> str:
    return Path(f"/proc/{process}/mountinfo").read_text()


def _inode(namespace: Path) -> str:
    return f"net:[{namespace.stat().st_ino}]"


def _network_namespace(pid: int | None) -> str:
    return str(Path(f"/proc/{pid}/ns/net").readlink())


@needs_root
@pytest.mark.root
async def test_nothing_of_a_container_is_in_the_hosts_mount_table(
    runtime: CrunRuntime, spec: Build, tmp_path: Path
) -> None:
    def ours() -> list[str]:
        return [line for line in _mount_table().splitlines() if str(tmp_path) in line]

    before = ours()
    await runtime.create(spec(mounts=(Mount(source=tmp_path, target="/data"),)))
    await runtime.start(C)
    assert ours() == before
    record = runtime._host.folder("c").read()
    assert record is not None
    assert record.monitor is not None
    seen = mount_points(_mount_table(record.monitor.pid))
    own = {point for point in seen if point.startswith(str(tmp_path))}
    folder = str(runtime._host.folder("c").path)
    names = ("layers/0", "log", "rootfs", "store", "volumes/0")
    assert own - {str(tmp_path / "run/runtime")} == {f"{folder}/{name}" for name in names}


@pytest.fixture
def network_namespace(tmp_path: Path) -> Iterator[Path]:
    """A network namespace that a file holds, as the network providers make them."""
    path = tmp_path / "netns"
    path.touch()
    subprocess.run(["unshare", f"--net={path}", "true"], check=True)
    yield path
    subprocess.run(["umount", path], check=True)


@needs_root
@pytest.mark.root
async def test_network_namespace_is_the_one_given(runtime: CrunRuntime, spec: Build, network_namespace: Path) -> None:
    await runtime.create(spec(network_namespace=network_namespace))
    status = await runtime.start(C)
    assert _network_namespace(status.pid) == _inode(network_namespace)


@needs_root
@pytest.mark.root
async def test_nothing_of_a_container_stays_in_the_view(runtime: CrunRuntime, spec: Build) -> None:
    cover = runtime._host.view.cover
    if cover is None:
        pytest.skip("this host's cgroup layout hides nothing from crun")

    def left() -> list[str]:
        return [path for _, folders, files in os.walk(f"/proc/self/fd/{cover}/") for path in (*folders, *files)]

    await runtime.create(spec())
    await runtime.start(C)
    assert str(C) in left()
    await runtime.stop(C, grace_seconds=0)
    await runtime.remove(C)
    assert str(C) not in left()
    assert "cgroup.procs" not in left()
