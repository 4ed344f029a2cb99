"""Images in an OCI archive: the tar of a layout folder, as ``podman save`` and ``skopeo copy`` write it.

Nothing is unpacked: the archive is looked through once, and blobs are read from where they stand in it. So no name in
it reaches the file system, and a link, device or folder is not even an entry.

Source: OCI image specification 1.1, image-layout.md; containers-transports(5), "oci-archive".
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO, cast

import attrs

from nanocloud.errors import ImageError, NotFoundError
from nanocloud_dockyard.layout import LayoutFiles, open_regular
from nanocloud_dockyard.limits import UnpackLimits
from nanocloud_dockyard.tarstream import Kind, LayerEntryError, LayerLimitError, TarStream

if TYPE_CHECKING:
    from pathlib import Path

_MAX_ENTRIES = 20_000
_MAX_NAME_BYTES = 256  # no longer one belongs to a layout


@attrs.frozen
class _Place:
    at: int
    size: int


class ArchiveFiles(LayoutFiles):
    """The files of one archive."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[str, _Place] | None = None
        self._seen: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return f"oci-archive:{self._path}"

    def open(self, name: str) -> tuple[int, int]:
        fd = open_regular(self._path, self.name, str(self._path))
        try:
            place = self._index(fd).get(name)
            if place is None:
                raise NotFoundError(f"{self.name} has no {name}")
            os.lseek(fd, place.at, os.SEEK_SET)
        except BaseException:
            os.close(fd)
            raise
        return fd, place.size

    def _index(self, fd: int) -> dict[str, _Place]:
        """Where each file stands; read again when the archive was replaced."""
        found = os.fstat(fd)
        seen = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
        if self._places is None or seen != self._seen:
            try:
                self._places, self._seen = _places(fd, found.st_size), seen
            except (LayerEntryError, LayerLimitError) as exc:
                raise ImageError(f"{self.name} is no OCI archive: {exc}") from None
        return self._places


def _places(fd: int, size: int) -> dict[str, _Place]:
    limits = UnpackLimits(max_layer_bytes=1 << 62, max_entries=_MAX_ENTRIES, max_header_bytes=64 << 10)
    places: dict[str, _Place] = {}
    with os.fdopen(os.dup(fd), "rb", buffering=0) as file:
        file.seek(0)
        tar = _Skipping(cast("BinaryIO", file), limits)
        for entry in tar:
            at = tar.position
            if at + entry.size > size:
                raise LayerEntryError("ends in the middle of an entry")
            name = entry.name.removeprefix(b"./")
            if entry.kind is Kind.FILE and len(name) <= _MAX_NAME_BYTES and name.isascii():
                if name.decode() in places:  # which one is meant, others may answer differently
                    raise LayerEntryError(f"names {name.decode()!r} twice")
                places[name.decode()] = _Place(at, entry.size)
    return places


class _Skipping(TarStream):
    """Steps over data instead of reading it."""

    def _skip(self, size: int) -> None:
        inside = min(size, len(self._buffer) - self._at)
        self._at += inside
        if size > inside:
            self._stream.seek(size - inside, os.SEEK_CUR)

    def _drain(self) -> None:
        """What stands behind the archive is nothing to us."""

    @property
    def position(self) -> int:
        """Where the current entry's data begin."""
        return self._stream.tell() - (len(self._buffer) - self._at)
