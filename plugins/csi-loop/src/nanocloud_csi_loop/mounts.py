"""Mounting and unmounting by system call, and the kernel's own list of what is mounted.

Source: mount(2), umount2(2), proc_pid_mountinfo(5).
"""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

import attrs

_MS_NOSUID, _MS_NODEV = 2, 4
_UMOUNT_NOFOLLOW = 8
_libc = ctypes.CDLL(None, use_errno=True)


@attrs.frozen(kw_only=True)
class Mounted:
    """One line of mountinfo."""

    device: tuple[int, int]
    """Major and minor number."""
    options: frozenset[str]
    fs_type: str


def mount(device: Path, target: Path, fs_type: str) -> None:
    """Mount with nosuid and nodev: nothing that a container writes there gains a privilege on the host."""
    flags = _MS_NOSUID | _MS_NODEV
    arguments = (os.fsencode(device), os.fsencode(target), fs_type.encode(), ctypes.c_ulong(flags), None)
    if _libc.mount(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def unmount(target: Path) -> None:
    """Raises OSError EBUSY while somebody uses it. Never lazily: a detached mount would go on writing unseen."""
    if _libc.umount2(os.fsencode(target), _UMOUNT_NOFOLLOW) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def table(only: Path | None = None) -> dict[Path, Mounted]:
    """What is mounted where, in this mount namespace; the topmost mount where several are stacked.

    ``only`` leaves out what is mounted elsewhere: to read all lines takes longer than to mount something.
    """
    found: dict[Path, Mounted] = {}
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    if only is not None:
        field = b" " + _escape(only) + b" "
        lines = [line for line in lines if field in line]
    for line in lines:
        fields = line.split(b" ")
        optional_end = fields.index(b"-", 6)
        major, minor = fields[2].split(b":")
        found[Path(_unescape(fields[4]))] = Mounted(
            device=(int(major), int(minor)),
            options=frozenset(fields[5].decode(errors="replace").split(",")),
            fs_type=fields[optional_end + 1].decode(errors="replace"),
        )
    return found


def _escape(path: Path) -> bytes:
    return re.sub(rb"[ \t\n\\]", lambda match: b"\\%03o" % match[0][0], os.fsencode(path))


def _unescape(field: bytes) -> str:
    plain = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field)
    return os.fsdecode(plain)
