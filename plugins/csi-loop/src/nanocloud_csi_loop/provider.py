"""The volume provider ``csi-loop``: a claim is an ext4 file system in a sparse image, mounted through a loop device.

The kernel has the last word on what is mounted and what a loop device shows; records only say what a volume is and
who asked for it. So every method first looks, then does what is missing, and works the same after a crash.
"""

from __future__ import annotations

import errno
import logging
import os
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeVar
from weakref import WeakValueDictionary

import trio

from nanocloud.errors import (
    CommandError,
    CorruptError,
    FieldError,
    InvalidError,
    NotFoundError,
    ProviderError,
    UnavailableError,
    VolumeFullError,
)
from nanocloud.providers.base import Removable
from nanocloud.providers.volume import VolumeId, VolumeProvider, VolumeSpec, VolumeStatus
from nanocloud_csi_loop import commands, ext4, loop, mounts
from nanocloud_csi_loop.folders import Folders, VolumeFolder, image_lock
from nanocloud_csi_loop.sizes import human
from nanocloud_csi_loop.validation import consumer_name, volume_id, volume_spec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

T = TypeVar("T")

_LOOP_MAJOR = 7
_THREADS = 8
_LET_GO_SECONDS, _LOOK_SECONDS = 10.0, 0.05


class LoopVolumes(VolumeProvider, Removable):
    """Volumes below one folder of the host."""

    def __init__(self, root: Path, *, overcommit: bool = False) -> None:
        self._root, self._overcommit = root, overcommit
        self._folders = Folders(root)
        self._threads: Final = trio.CapacityLimiter(_THREADS)
        self._claiming: Final = trio.Lock()  # a look at the free room and the claim on it are one step
        self._locks: Final = WeakValueDictionary[VolumeId, trio.Lock]()

    @property
    def name(self) -> str:
        return "csi-loop"

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        _require_root()
        await commands.require_tools()
        with self._hold_root():
            await self._in_thread(self._recover)
            yield

    async def create(self, spec: VolumeSpec) -> VolumeStatus:
        volume_spec(spec)
        async with self._lock(spec.id):
            with suppress(NotFoundError):
                return await self._in_thread(self._existing, spec)
            with _step(f"making volume {spec.id}"):
                await self._make(spec)
            return await self._in_thread(self._status, spec.id)

    async def publish(self, volume: VolumeId, *, consumer: str) -> Path:
        volume_id(volume)
        consumer_name(consumer)
        async with self._lock(volume):
            record = await self._in_thread(self._folders.load, volume)
            folder = self._folders[volume]
            with _step(f"mounting volume {volume}"):
                if await self._in_thread(self._join, volume, consumer):
                    return folder.mount
                with image_lock(folder) as lock_fd:
                    if await self._in_thread(_needs_check, folder):
                        log.info("volume %s was not unmounted cleanly: checking it", volume)
                        await ext4.check(folder.image, lock_fd=lock_fd)
                    await self._in_thread(self._mount, volume, consumer, record.fs_type)
            return folder.mount

    async def unpublish(self, volume: VolumeId, *, consumer: str) -> None:
        volume_id(volume)
        consumer_name(consumer)
        async with self._lock(volume):
            with _step(f"unmounting volume {volume}"):
                await self._in_thread(self._leave, volume, consumer)

    async def delete(self, volume: VolumeId) -> None:
        volume_id(volume)
        async with self._lock(volume):
            with _step(f"removing volume {volume}"):
                await self._in_thread(self._delete, volume)

    async def list(self) -> Sequence[VolumeStatus]:
        with _step("reading the volumes"):
            return await self._in_thread(self._list)

    async def purge(self) -> None:
        _require_root()
        if not await self._in_thread(self._root.is_dir):
            return
        with self._hold_root(), _step("removing every volume"):
            # Containers that were killed a moment ago hold their volumes until the kernel has taken them down.
            with trio.move_on_after(_LET_GO_SECONDS):
                while not await self._in_thread(self._are_let_go):  # noqa: ASYNC110 - the kernel tells nobody
                    await trio.sleep(_LOOK_SECONDS)
            await self._in_thread(self._purge)  # says what still holds one

    # Below: one volume's lock is held wherever a volume is named, and what is not ``async`` runs in a thread.

    def _lock(self, volume: VolumeId) -> trio.Lock:
        return self._locks.setdefault(volume, trio.Lock())

    async def _in_thread(self, work: Callable[..., T], *args: object) -> T:
        # Not abandoned on cancellation: a step that changes the host is waited for, so nothing works on behind us.
        return await trio.to_thread.run_sync(work, *args, limiter=self._threads)

    @contextmanager
    def _hold_root(self) -> Iterator[None]:
        with self._folders.locked():
            # mountinfo knows only real paths; the folder exists now, so it has one.
            given, self._folders = self._folders, Folders(self._root.resolve())
            try:
                yield
            finally:
                self._folders = given

    def _recover(self) -> None:
        """Bring the host to what the records say, after whatever ended the provider before."""
        self._folders.sweep()
        mounted = mounts.table()
        for volume in self._folders.ids():
            folder = self._folders[volume]
            if folder.mount not in mounted:
                self._folders.forget_consumers(volume)
            elif not self._consumers(volume, mounted):
                try:
                    _unmount(folder)
                except OSError as exc:
                    log.warning("volume %s is mounted, nobody asked for it, and it is busy: %s", volume, exc)

    def _existing(self, spec: VolumeSpec) -> VolumeStatus:
        """Status of the volume that ``spec`` asks for, if there is one of that id."""
        record = self._folders.load(spec.id)
        for field, has, wanted in (
            ("size_bytes", record.size_bytes, spec.size_bytes),
            ("fs_type", record.fs_type, spec.fs_type),
        ):
            if has != wanted:
                message = f"the volume exists with {has!r}; {wanted!r} was asked for, and it cannot be changed"
                raise InvalidError(f"volume {spec.id}: {field}: {message}", [FieldError(field, message)])
        return self._status(spec.id)

    async def _make(self, spec: VolumeSpec) -> None:
        try:
            async with self._claiming:
                folder = await self._in_thread(self._claim, spec)
            await ext4.make(folder.image, spec.size_bytes)
            await self._in_thread(
                lambda: self._folders.finish(spec.id, size_bytes=spec.size_bytes, fs_type=spec.fs_type)
            )
        except BaseException:
            # Also on cancellation; where the shielded step cannot succeed either, the next start sweeps.
            with trio.CancelScope(shield=True), suppress(OSError):
                await self._in_thread(self._folders.abandon, spec.id)
            raise

    def _claim(self, spec: VolumeSpec) -> VolumeFolder:
        needed = ext4.estimate_image_size(spec.size_bytes)
        room = self._folders.room(overcommit=self._overcommit)
        if needed > room:
            promised = "" if self._overcommit else " that is not promised to other volumes"
            raise VolumeFullError(
                f"volume {spec.id} of {human(spec.size_bytes)} ({spec.size_bytes} bytes) needs {human(needed)} on disk;"
                f" {self._root} has {human(max(0, room))} ({max(0, room)} bytes){promised}",
                hint="ask for less, remove volumes that nobody needs, or set csi-loop.root to a larger disk",
            )
        return self._folders.begin(spec.id, needed)

    def _join(self, volume: VolumeId, consumer: str) -> bool:
        """Add the consumer if the volume is mounted already; says whether it is."""
        folder = self._folders[volume]
        mounted = mounts.table(only=folder.mount)
        if (mount := mounted.get(folder.mount)) is None:
            return False
        major, minor = mount.device
        if major != _LOOP_MAJOR or not loop.shows(minor, folder.image):
            raise ProviderError(
                f"volume {volume}: something else is mounted on {folder.mount}", hint=f"umount {folder.mount}"
            )
        self._folders.set_consumers(volume, {*self._consumers(volume, mounted), consumer})
        return True

    def _mount(self, volume: VolumeId, consumer: str, fs_type: str) -> None:
        folder = self._folders[volume]
        self._folders.forget_consumers(volume)  # of before a reboot; the mount below would make them count again
        folder.mount.mkdir(mode=0o700, exist_ok=True)  # a crash may have come between removing and making it
        with loop.attached(folder.image) as device:
            mounts.mount(device.path, folder.mount, fs_type)
        try:
            # Programs such as PostgreSQL refuse a data folder that is not empty. A check makes it again, so it goes
            # at every mount; with something in it, it stays: that is data which a check saved.
            with suppress(OSError):
                (folder.mount / "lost+found").rmdir()
            self._folders.set_consumers(volume, {consumer})
        except BaseException:
            _unmount(folder)
            raise

    def _leave(self, volume: VolumeId, consumer: str) -> None:
        self._folders.load(volume)
        folder = self._folders[volume]
        mounted = mounts.table(only=folder.mount)
        if folder.mount not in mounted:
            self._folders.forget_consumers(volume)
            return
        if left := {*self._consumers(volume, mounted)} - {consumer}:
            self._folders.set_consumers(volume, left)
            return
        # The record goes after the mount: while the mount is busy, the consumer still shows, and is asked for again.
        _unmount_idle(volume, folder)
        self._folders.forget_consumers(volume)

    def _delete(self, volume: VolumeId) -> None:
        folder = self._folders[volume]
        if not folder.record.exists():
            return
        mounted = mounts.table(only=folder.mount)
        if consumers := self._consumers(volume, mounted):
            raise UnavailableError(
                f"volume {volume} is used by {', '.join(consumers)}", hint="stop what uses it, then remove it"
            )
        if folder.mount in mounted:
            _unmount_idle(volume, folder)
        if devices := loop.devices_of(folder.image):
            raise UnavailableError(
                f"volume {volume} is still shown by /dev/loop{devices[0]}: a container or program that had it mounted"
                " has not ended yet"
            )
        self._folders.remove(volume)

    def _list(self) -> Sequence[VolumeStatus]:
        mounted = mounts.table()
        found = []
        for volume in self._folders.ids():
            try:
                found.append(self._status(volume, mounted))
            except NotFoundError:
                continue  # removed since the folder was read
            except CorruptError as exc:
                log.error("volume %s is left out: %s", volume, exc)
        return found

    def _status(self, volume: VolumeId, mounted: Mapping[Path, mounts.Mounted] | None = None) -> VolumeStatus:
        record, folder = self._folders.load(volume), self._folders[volume]
        mounted = mounts.table(only=folder.mount) if mounted is None else mounted
        published = folder.mount in mounted
        return VolumeStatus(
            id=volume,
            size_bytes=record.size_bytes,
            fs_type=record.fs_type,
            used_bytes=_used_bytes(folder.mount) if published else None,
            published_path=folder.mount if published else None,
            consumers=self._consumers(volume, mounted),
        )

    def _consumers(self, volume: VolumeId, mounted: Mapping[Path, mounts.Mounted]) -> tuple[str, ...]:
        return self._folders.consumers(volume) if self._folders[volume].mount in mounted else ()

    def _are_let_go(self) -> bool:
        """Unmount the volumes; False while something has one mounted all the same."""
        self._folders.sweep()
        try:
            for volume in self._folders.ids():
                self._unmount_here(volume)
        except UnavailableError:
            return False
        images = [self._folders[volume].image for volume in self._folders.ids()]
        return not any(loop.devices_of(image) for image in images if image.exists())

    def _unmount_here(self, volume: VolumeId) -> None:
        folder = self._folders[volume]
        while folder.mount in mounts.table(only=folder.mount):
            _unmount_idle(volume, folder)

    def _purge(self) -> None:
        for volume in self._folders.ids():
            self._unmount_here(volume)
            self._delete(volume)
        with suppress(OSError):  # not ours alone: something else lies in it, or it is a mount point
            self._root.rmdir()


def _needs_check(folder: VolumeFolder) -> bool:
    # Behind a loop device the file system lives on in some mount namespace: its superblock says nothing now.
    return not loop.devices_of(folder.image) and not ext4.read_superblock(folder.image).clean


def _used_bytes(mount: Path) -> int:
    disk = os.statvfs(mount)
    return (disk.f_blocks - disk.f_bfree) * disk.f_frsize


def _unmount(folder: VolumeFolder) -> None:
    """Unmount here, and in every mount namespace that was copied from this one meanwhile.

    Any program that makes itself a mount namespace gets copies of all mounts, and would hold the file system until it
    ends. On removing a folder the kernel detaches what is mounted on it anywhere else (vfs_rmdir, detach_mounts), so
    the mount point is made anew. What a container was given is mounted elsewhere and stays.
    """
    mounts.unmount(folder.mount)
    with suppress(OSError):  # something is still mounted here: the next one unmounts it
        folder.mount.rmdir()
        folder.mount.mkdir(mode=0o700)


def _unmount_idle(volume: VolumeId, folder: VolumeFolder) -> None:
    try:
        _unmount(folder)
    except OSError as exc:
        if exc.errno != errno.EBUSY:
            raise
        raise UnavailableError(
            f"volume {volume} is busy: a program on the host uses {folder.mount}",
            hint=f"fuser -vm {folder.mount} shows it",
        ) from exc


def _require_root() -> None:
    if os.geteuid() != 0:
        raise ProviderError("csi-loop mounts file systems, which needs root", hint="run the node as root")


@contextmanager
def _step(step: str) -> Iterator[None]:
    """What the host refuses becomes a ProviderError that names the step."""
    try:
        yield
    except OSError as exc:
        where = f" ({exc.filename})" if exc.filename else ""
        raise ProviderError(f"{step} failed: {exc.strerror or exc}{where}") from exc
    except CommandError as exc:
        raise ProviderError(f"{step} failed: {exc}") from exc
