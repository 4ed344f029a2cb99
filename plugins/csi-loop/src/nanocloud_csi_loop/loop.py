"""Loop devices by ioctl: which one shows an image, and attaching an image so that it goes with its last user.

Every device is attached with *autoclear*: the kernel detaches it when the last mount or descriptor is gone, so a
killed server leaves none behind. An image must never be behind two devices at once, for two mounts of one file system
destroy it; a mount that lives on in a container's mount namespace keeps its device, so ``attached`` looks for it.

Source: loop(4); kernel ``include/uapi/linux/loop.h``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from nanocloud.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOOP_GET_STATUS64, _LOOP_CONFIGURE, _LOOP_CTL_GET_FREE = 0x4C05, 0x4C0A, 0x4C82
_AUTOCLEAR, _DIRECT_IO = 4, 16
# struct loop_info64: device, inode, rdevice, offset, sizelimit; number, encrypt type, key size, flags; file name;
# crypt name and key; two init words.
_INFO = struct.Struct("=5Q4I64s64s32s2Q")
_CONFIG = struct.Struct(f"=II{_INFO.size}s64x")  # struct loop_config: fd, block size, info, reserved
_SYSFS = Path("/sys/block")
_ATTEMPTS = 64


@attrs.frozen(kw_only=True)
class LoopDevice:
    number: int
    fd: int
    """Open: while it is, the kernel does not detach the device."""

    @property
    def path(self) -> Path:
        return _path(self.number)


def devices_of(image: Path) -> list[int]:
    """Numbers of the loop devices that show ``image`` now."""
    wanted = image.stat()
    # Without sysfs this raises, and must: an image that may be attached already is not attached again.
    names = (entry.name for entry in _SYSFS.iterdir() if entry.name.startswith("loop") and (entry / "loop").is_dir())
    return sorted(number for name in names if _shows(number := int(name[4:]), wanted))


def shows(number: int, image: Path) -> bool:
    """Whether loop device ``number`` shows ``image`` now."""
    return _shows(number, image.stat())


@contextmanager
def attached(image: Path) -> Iterator[LoopDevice]:
    """The loop device of ``image``, found or made; it stays after the block only if a mount then holds it.

    Raises:
        OSError: the host refused.
        UnavailableError: every device that the kernel offered was taken by somebody else.
    """
    device = _hold_existing(image) or _attach_new(image)
    try:
        yield device
    finally:
        os.close(device.fd)


def _hold_existing(image: Path) -> LoopDevice | None:
    for number in devices_of(image):
        try:
            fd = os.open(_path(number), os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # it went between the look and the open
        # Only now it cannot go any more: look again through the descriptor.
        if _same_file(_status(fd), image.stat()):
            return LoopDevice(number=number, fd=fd)
        os.close(fd)
    return None


def _attach_new(image: Path) -> LoopDevice:
    backing = os.open(image, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
            if (fd := _configure(number, backing, image)) is not None:
                return LoopDevice(number=number, fd=fd)
    finally:
        os.close(control)
        os.close(backing)
    raise UnavailableError(f"no loop device for {image}: {_ATTEMPTS} free ones were taken by other programs meanwhile")


def _configure(number: int, backing: int, image: Path) -> int | None:
    """Descriptor of loop device ``number``, now showing ``backing``; None where another program was faster."""
    fd = os.open(_path(number), os.O_RDWR | os.O_CLOEXEC)
    try:
        # Direct I/O spares a second copy of everything in the page cache; kernels that cannot have it here say EINVAL.
        for flags in (_AUTOCLEAR | _DIRECT_IO, _AUTOCLEAR):
            name = os.fsencode(image)[:63]
            info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, name, b"", b"", 0, 0)
            try:
                fcntl.ioctl(fd, _LOOP_CONFIGURE, _CONFIG.pack(backing, 0, info))
            except OSError as exc:
                if exc.errno == errno.EINVAL and flags & _DIRECT_IO:
                    continue
                if exc.errno == errno.EBUSY:
                    break
                raise
            taken, fd = fd, -1
            return taken
        return None
    finally:
        if fd >= 0:
            os.close(fd)


def _shows(number: int, wanted: os.stat_result) -> bool:
    try:
        fd = os.open(_path(number), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return _same_file(_status(fd), wanted)
    finally:
        os.close(fd)


def _status(fd: int) -> tuple[int, int] | None:
    """Device and inode of the file behind the loop device; None where there is none."""
    try:
        raw = fcntl.ioctl(fd, _LOOP_GET_STATUS64, bytes(_INFO.size))
    except OSError as exc:
        if exc.errno == errno.ENXIO:
            return None
        raise
    device, inode, *_ = _INFO.unpack(raw)
    return device, inode


def _same_file(status: tuple[int, int] | None, wanted: os.stat_result) -> bool:
    return status == (wanted.st_dev, wanted.st_ino)


def _path(number: int) -> Path:
    return Path(f"/dev/loop{number}")
