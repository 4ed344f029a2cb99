"""FakeVolume: volumes as plain folders below one that the test gives."""

from __future__ import annotations

import re
import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs

from nanocloud.errors import FieldError, InvalidError, NotFoundError, UnavailableError, VolumeFullError
from nanocloud.providers.base import Removable
from nanocloud.providers.volume import VolumeId, VolumeProvider, VolumeSpec, VolumeStatus
from nanocloud.testkit.calls import Calls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

_ID = re.compile(r"[a-z0-9][a-z0-9.-]{0,127}")


@attrs.define
class _Volume:
    spec: VolumeSpec
    consumers: set[str] = attrs.field(factory=set)


class FakeVolume(VolumeProvider, Removable):
    """Keeps the contract but for what takes a file system: a folder is not mounted, and nothing stops a writer at the
    limit."""

    def __init__(self, folder: Path, *, capacity_bytes: int = 1 << 40) -> None:
        self.calls = Calls()
        self._folder, self._capacity_bytes = folder, capacity_bytes
        self._volumes: dict[VolumeId, _Volume] = {}

    @property
    def name(self) -> str:
        return "fake"

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        yield

    async def create(self, spec: VolumeSpec) -> VolumeStatus:
        _check_id(spec.id)
        await self.calls.enter("create", spec.id)
        if spec.size_bytes <= 0:
            raise _invalid(spec.id, "size_bytes", f"is {spec.size_bytes}; it must be positive")
        if spec.fs_type != "ext4":
            raise _invalid(spec.id, "fs_type", f"is {spec.fs_type!r}; it must be ext4")
        if (volume := self._volumes.get(spec.id)) is not None:
            for field in ("size_bytes", "fs_type"):
                if (has := getattr(volume.spec, field)) != (wanted := getattr(spec, field)):
                    raise _invalid(spec.id, field, f"is {has} already, not {wanted}")
            return self._status(volume)
        free = self._capacity_bytes - sum(volume.spec.size_bytes for volume in self._volumes.values())
        if spec.size_bytes > free:
            raise VolumeFullError(f"volume {spec.id} asks for {spec.size_bytes} bytes; {free} bytes are free")
        (self._folder / spec.id).mkdir()
        self._volumes[spec.id] = _Volume(spec)
        return self._status(self._volumes[spec.id])

    async def publish(self, volume: VolumeId, *, consumer: str) -> Path:
        _check_id(volume)
        await self.calls.enter("publish", volume)
        self._known(volume).consumers.add(consumer)
        return self._folder / volume

    async def unpublish(self, volume: VolumeId, *, consumer: str) -> None:
        _check_id(volume)
        await self.calls.enter("unpublish", volume)
        self._known(volume).consumers.discard(consumer)

    async def delete(self, volume: VolumeId) -> None:
        _check_id(volume)
        await self.calls.enter("delete", volume)
        if (found := self._volumes.get(volume)) is None:
            return
        if found.consumers:
            raise UnavailableError(f"volume {volume} is used by {', '.join(sorted(found.consumers))}")
        shutil.rmtree(self._folder / volume)
        del self._volumes[volume]

    async def list(self) -> Sequence[VolumeStatus]:
        await self.calls.enter("list", "")
        return [self._status(volume) for _, volume in sorted(self._volumes.items())]

    async def purge(self) -> None:
        await self.calls.enter("purge", "")
        for volume in self._volumes:
            shutil.rmtree(self._folder / volume)
        self._volumes.clear()

    def reboot(self) -> None:
        """What the machine's restart does: the volumes stay, nobody uses them."""
        for volume in self._volumes.values():
            volume.consumers.clear()

    def _known(self, volume: VolumeId) -> _Volume:
        if volume not in self._volumes:
            raise NotFoundError(f"volume {volume} does not exist")
        return self._volumes[volume]

    def _status(self, volume: _Volume) -> VolumeStatus:
        folder = self._folder / volume.spec.id
        used = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        return VolumeStatus(
            id=volume.spec.id,
            size_bytes=volume.spec.size_bytes,
            fs_type=volume.spec.fs_type,
            used_bytes=used if volume.consumers else None,
            published_path=folder if volume.consumers else None,
            consumers=tuple(sorted(volume.consumers)),
        )


def _check_id(volume: VolumeId) -> None:
    if not isinstance(volume, str) or not _ID.fullmatch(volume):
        raise _invalid(ascii(volume), "id", f"does not match {_ID.pattern}")


def _invalid(volume: str, field: str, message: str) -> InvalidError:
    return InvalidError(f"volume {volume}: {field} {message}", [FieldError(field, message)])
