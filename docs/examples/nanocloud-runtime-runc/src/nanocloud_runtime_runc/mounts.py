"""mount(2) and umount2(2), which Python does not have. Calls block: callers run them in a thread.

Source: mount(2), umount2(2); proc(5), ``/proc/[pid]/mountinfo``.
"""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

NOSUID, NODEV, NOEXEC = 2, 4, 8
_DETACH, _NO_LINK = 2, 8
_libc = ctypes.CDLL(None, use_errno=True)


def mount(kind: str, target: Path, options: str, flags: int) -> None:
    """Mount a file system of this kind.

    Raises:
        OSError: as the kernel says it.
    """
    words = [word.encode() for word in (kind, os.fspath(target), kind, options)]
    if _libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def unmount(target: Path) -> None:
    """Take off everything that is mounted at ``target``; nothing where there is nothing."""
    while not _libc.umount2(os.fsencode(target), _DETACH | _NO_LINK):
        pass


def is_tmpfs(path: Path) -> bool:
    """Whether files in this folder, which exists, are in memory alone."""
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    return any(fields[2] == number and kind in ("tmpfs", "ramfs") for fields, kind in _mountinfo())


def is_mount_point(path: Path) -> bool:
    return any(_unescaped(fields[4]) == os.fspath(path.resolve()) for fields, _ in _mountinfo())


def _mountinfo() -> list[tuple[list[str], str]]:
    """Each mount's fields, and its kind."""
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    return [(line.split(), line.partition(" - ")[2].split()[0]) for line in lines]


def _unescaped(text: str) -> str:
    return re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), text)
