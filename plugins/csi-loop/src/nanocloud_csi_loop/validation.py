"""What a volume id, a consumer and a volume's spec may be; nothing that fails here has reached a path."""

from __future__ import annotations

import re

from nanocloud.errors import FieldError, InvalidError
from nanocloud.providers.volume import VolumeId, VolumeSpec
from nanocloud_csi_loop.sizes import MIB, TIB, human

FS_TYPES = ("ext4",)
MINIMUM_SIZE = 16 * MIB  # below this the journal is most of the image
MAXIMUM_SIZE = 8 * TIB  # a file on the host's ext4 ends at 16 TiB

_ID = re.compile(r"[a-z0-9][a-z0-9.-]{0,127}")
_CONSUMER = re.compile(r"[!-~]{1,512}")  # kept as data, never as a path: only printable and of bounded length


def volume_id(value: object) -> VolumeId:
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise _refused("id", value, "1 to 128 of a-z, 0-9, '-' and '.', beginning with a letter or digit")
    return VolumeId(value)


def consumer_name(value: object) -> str:
    if not isinstance(value, str) or not _CONSUMER.fullmatch(value):
        raise _refused("consumer", value, "1 to 512 printable ASCII characters without spaces")
    return value


def volume_spec(spec: VolumeSpec) -> VolumeSpec:
    """``spec`` itself, if a volume can be made of it."""
    volume_id(spec.id)
    if type(spec.size_bytes) is not int or not MINIMUM_SIZE <= spec.size_bytes <= MAXIMUM_SIZE:
        allowed = f"a whole number of bytes from {human(MINIMUM_SIZE)} to {human(MAXIMUM_SIZE)}"
        raise _refused("size_bytes", spec.size_bytes, allowed, volume=spec.id)
    if spec.fs_type not in FS_TYPES:
        raise _refused("fs_type", spec.fs_type, "one of " + ", ".join(FS_TYPES), volume=spec.id)
    return spec


def _refused(field: str, value: object, allowed: str, *, volume: str = "") -> InvalidError:
    shown = ascii(value) if len(ascii(value)) <= 80 else ascii(value)[:77] + "..."
    message = f"{shown} is not allowed; it must be {allowed}"
    return InvalidError(f"volume {volume + ': ' if volume else ''}{field} {message}", [FieldError(field, message)])
