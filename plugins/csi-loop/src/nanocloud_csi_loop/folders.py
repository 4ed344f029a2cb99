"""The folder of all volumes: what lies where, and how each step survives the server being killed after it.

Layout, everything mode 0700 or 0600:

    <root>/                       locked (flock) while a provider is open
      <id>/volume.json            {"format": 1, "id": ..., "sizeBytes": ..., "fsType": ...}; written once
      <id>/volume.img             the file system, sparse
      <id>/mount/                 where it is mounted
      <id>/consumers.json         {"consumers": [...]}; counts only while the volume is mounted
      .new-<id>/, .gone-<id>/     a volume being made or removed; collected when a provider opens

A volume exists from the rename of ``.new-<id>`` to ``<id>`` and is gone with the rename to ``.gone-<id>``. After a
reboot nothing is mounted, so the consumers of before are void without anybody cleaning up.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import attrs

from nanocloud.errors import CorruptError, InvalidError, LockedError, NotFoundError, UnavailableError
from nanocloud.models.converter import structure, unstructure
from nanocloud.providers.volume import VolumeId
from nanocloud_csi_loop.validation import volume_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_FORMAT = 1
_NEW, _GONE = ".new-", ".gone-"
_RECORD_LIMIT_BYTES = 1024 * 1024


@attrs.frozen(kw_only=True)
class Record:
    """``volume.json``."""

    format: int
    id: str
    size_bytes: int
    fs_type: str


@attrs.frozen(kw_only=True)
class _Consumers:
    """``consumers.json``."""

    consumers: list[str]


@attrs.frozen
class VolumeFolder:
    """Paths of one volume, being made or made."""

    path: Path

    @property
    def image(self) -> Path:
        return self.path / "volume.img"

    @property
    def record(self) -> Path:
        return self.path / "volume.json"

    @property
    def mount(self) -> Path:
        return self.path / "mount"

    @property
    def consumers(self) -> Path:
        return self.path / "consumers.json"


class Folders:
    """All volumes below ``root``. Methods block; the caller keeps two of them from working on one id at once."""

    def __init__(self, root: Path) -> None:
        self.root: Final = root

    def __getitem__(self, volume: VolumeId) -> VolumeFolder:
        return VolumeFolder(self.root / volume)

    def staging(self, volume: VolumeId) -> VolumeFolder:
        return VolumeFolder(self.root / f"{_NEW}{volume}")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder, making it first. Raises LockedError where another process or provider holds it."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LockedError(
                    f"the volumes in {self.root} are in use by another process", hint="is a node running already?"
                ) from None
            yield
        finally:
            os.close(fd)

    def ids(self) -> list[VolumeId]:
        """Volumes that exist whole."""
        return sorted(id_ for entry in self.root.iterdir() if (id_ := self._id_of(entry.name)) is not None)

    def _id_of(self, name: str) -> VolumeId | None:
        try:
            found = volume_id(name)
        except InvalidError:
            return None  # lost+found where root is a file system of its own, and what is being made or removed
        return found if self[found].record.exists() else None

    def load(self, volume: VolumeId) -> Record:
        """Raises NotFoundError, or CorruptError where the record does not read back."""
        file = self[volume].record
        try:
            record = structure(json.loads(_read_small(file)), Record, what=str(file))
        except FileNotFoundError:
            raise NotFoundError(f"volume {volume} does not exist") from None
        except (ValueError, InvalidError) as exc:
            raise CorruptError(f"the record of volume {volume} cannot be read: {exc}") from exc
        if record.format != _FORMAT or record.id != volume:
            raise CorruptError(
                f"{file} is format {record.format} of volume {record.id}; expected format {_FORMAT} of {volume}"
            )
        return record

    def begin(self, volume: VolumeId, image_size: int) -> VolumeFolder:
        """A fresh staging folder whose image already claims its size."""
        folder = self.staging(volume)
        _remove(folder)
        folder.path.mkdir(mode=0o700)
        fd = os.open(folder.image, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.truncate(fd, image_size)
        finally:
            os.close(fd)
        return folder

    def finish(self, volume: VolumeId, *, size_bytes: int, fs_type: str) -> None:
        """Turn the staging folder into the volume; durable when this returns."""
        folder = self.staging(volume)
        folder.mount.mkdir(mode=0o700)
        record = Record(format=_FORMAT, id=volume, size_bytes=size_bytes, fs_type=fs_type)
        _write_synced(folder.record, json.dumps(unstructure(record)).encode())
        for path in (folder.image, folder.path):
            _sync(path)
        folder.path.rename(self[volume].path)
        _sync(self.root)

    def abandon(self, volume: VolumeId) -> None:
        _remove(self.staging(volume))

    def remove(self, volume: VolumeId) -> None:
        """Remove an unmounted volume. From the rename on it is gone, whatever happens next."""
        gone = VolumeFolder(self.root / f"{_GONE}{volume}")
        _remove(gone)
        self[volume].path.rename(gone.path)
        _sync(self.root)
        _remove(gone)

    def sweep(self) -> None:
        """Remove what a killed server left half made or half removed."""
        for path in list(self.root.iterdir()):
            if path.name.startswith((_NEW, _GONE)):
                _remove(VolumeFolder(path))

    def consumers(self, volume: VolumeId) -> tuple[str, ...]:
        """As recorded, sorted; the caller asks the kernel whether the volume is mounted at all."""
        file = self[volume].consumers
        try:
            return tuple(sorted(structure(json.loads(_read_small(file)), _Consumers, what=str(file)).consumers))
        except FileNotFoundError:
            return ()
        except (ValueError, InvalidError) as exc:
            raise CorruptError(f"the consumers of volume {volume} cannot be read: {exc}") from exc

    def set_consumers(self, volume: VolumeId, consumers: Iterable[str]) -> None:
        """Replace the record in one step. Not synced: after a power loss it is void anyway."""
        file = self[volume].consumers
        temporary = file.with_suffix(".tmp")
        temporary.write_bytes(json.dumps({"consumers": sorted(consumers)}).encode())
        temporary.rename(file)

    def forget_consumers(self, volume: VolumeId) -> None:
        self[volume].consumers.unlink(missing_ok=True)

    def room(self, *, overcommit: bool) -> int:
        """Bytes that a new image may claim: what the disk has free less what other images have yet to fill."""
        disk = os.statvfs(self.root)
        free = disk.f_bavail * disk.f_frsize
        return free if overcommit else free - self._promised()

    def _promised(self) -> int:
        total = 0
        for entry in list(self.root.iterdir()):
            # An image may go away between the two looks.
            with suppress(FileNotFoundError, NotADirectoryError):
                image = VolumeFolder(entry).image.stat()
                total += max(0, image.st_size - image.st_blocks * 512)
        return total


@contextmanager
def image_lock(folder: VolumeFolder) -> Iterator[int]:
    """Hold the image for a check or a mount. Yields the descriptor that carries the lock.

    A program that inherits the descriptor keeps the lock when the server dies, so a server that starts again cannot
    mount an image that a check of before is still writing to.
    """
    fd = os.open(folder.image, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UnavailableError(
                f"{folder.image} is still being checked by an e2fsck of before the restart",
                hint="it ends by itself; try again then",
            ) from None
        yield fd
    finally:
        os.close(fd)


def _remove(folder: VolumeFolder) -> None:
    """Remove one volume's files by name, never a tree: whatever is mounted there by mistake is not touched."""
    if not folder.path.is_dir():
        return
    # The record goes last of the files, so that what is left half removed is known for what it is.
    for file in (folder.image, folder.consumers, folder.consumers.with_suffix(".tmp"), folder.record):
        file.unlink(missing_ok=True)
    for path in (folder.mount, folder.path):
        with suppress(FileNotFoundError):
            path.rmdir()


def _read_small(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(_RECORD_LIMIT_BYTES)


def _write_synced(file: Path, content: bytes) -> None:
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(fd)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
