"""The volume contract: a claim becomes a file system of the asked size that containers mount.

Volumes outlive the server and the machine's restarts. Source: CSI specification 1.9 for the vocabulary (stage and
publish are one step here: there is one node).
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, NewType

import attrs

from nanocloud.providers.base import Provider

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

VolumeId = NewType("VolumeId", str)
"""``[a-z0-9][a-z0-9.-]{0,127}``; unique on the node, chosen by the caller."""


@attrs.frozen(kw_only=True)
class VolumeSpec:
    id: VolumeId
    size_bytes: int
    """Of the file system; the limit holds for what is written."""
    fs_type: str = "ext4"


@attrs.frozen(kw_only=True)
class VolumeStatus:
    id: VolumeId
    size_bytes: int
    fs_type: str
    used_bytes: int | None
    """None while it is not published."""
    published_path: Path | None
    """Where its root is mounted on the host; None while nobody uses it."""
    consumers: tuple[str, ...]


class VolumeProvider(Provider):
    """Keeps volumes. Unknown ids raise NotFoundError unless a method says otherwise. Calls for one volume may
    overlap."""

    @abc.abstractmethod
    async def create(self, spec: VolumeSpec) -> VolumeStatus:
        """Make the volume, whole or not at all. The same spec again returns the volume.

        Raises:
            InvalidError: an id, size or file system that cannot be.
            InvalidError: the id exists with another size or file system.
            VolumeFullError: the host has not that much room; names both sizes.
        """

    @abc.abstractmethod
    async def publish(self, volume: VolumeId, *, consumer: str) -> Path:
        """Mount the volume (nosuid, nodev) and return the host path of its root. Repeats safely for a consumer.

        All consumers get the same path. A fresh volume is empty; what was written is there again.
        """

    @abc.abstractmethod
    async def unpublish(self, volume: VolumeId, *, consumer: str) -> None:
        """Drop the consumer; without consumers the volume is unmounted. Unknown consumers are no error."""

    @abc.abstractmethod
    async def delete(self, volume: VolumeId) -> None:
        """Remove the volume and its data. Unknown ids are no error.

        Raises:
            UnavailableError: a consumer still uses it; names the consumer.
        """

    @abc.abstractmethod
    async def list(self) -> Sequence[VolumeStatus]:
        """Every volume; mounts and consumers as the kernel and the records agree."""
