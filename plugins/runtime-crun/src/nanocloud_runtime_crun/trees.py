"""Remove a tree that a container wrote: any names, any depth, any number of entries, any file flags.

Every step is relative to an open folder and follows no link, so nothing outside is ever touched. Two folders are open
at a time, however deep the tree, and memory does not depend on its size: after a folder is emptied the walk goes back
through ``..`` and checks that it came out where it went in. Nothing else may write to the tree meanwhile.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# ioctl_iflags(2): "immutable" and "append only" keep even root from removing a file or what is in a folder.
_GETFLAGS, _SETFLAGS = 0x80086601, 0x40086602
_KEPT_FLAGS = ~(0x10 | 0x20)


def remove_tree(path: Path, *, stopped: Callable[[], bool] = lambda: False) -> None:
    """Remove ``path`` and all below it; no error where it is not there. Repeats safely after a crash.

    ``stopped`` is asked before each entry: True leaves the rest for another time.
    """
    try:
        parent = os.open(path.parent, _FOLDER)
    except FileNotFoundError:
        return
    try:
        try:
            if _unlink(parent, path.name):
                return
            top = os.open(path.name, _FOLDER, dir_fd=parent)
        except FileNotFoundError:
            return
        if _empty(top, stopped):
            _retry_without_flags(parent, path.name, lambda name, fd: os.rmdir(name, dir_fd=fd))
    finally:
        os.close(parent)


def _empty(folder: int, stopped: Callable[[], bool]) -> bool:
    """Remove everything in ``folder`` and close it; False when it was stopped."""
    above: list[tuple[int, int, str]] = []  # device, inode of each parent, and the name by which it was left
    try:
        while True:
            name = _next_folder(folder, stopped)
            if stopped():
                return False
            if name is not None:
                here = os.fstat(folder)
                below = os.open(name, _FOLDER, dir_fd=folder)
                os.close(folder)
                folder = below
                above.append((here.st_dev, here.st_ino, name))
            elif above:
                device, inode, name = above.pop()
                parent = os.open("..", _FOLDER, dir_fd=folder)
                os.close(folder)
                folder = parent
                here = os.fstat(folder)
                if (here.st_dev, here.st_ino) != (device, inode):
                    raise OSError(errno.ESTALE, "a folder was moved while it was being removed")
                _retry_without_flags(folder, name, lambda name, fd: os.rmdir(name, dir_fd=fd))
            else:
                return True
    finally:
        os.close(folder)


def _next_folder(folder: int, stopped: Callable[[], bool]) -> str | None:
    """Remove the files in ``folder`` up to the first folder that is not empty, and name that."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if stopped():
                return None
            if not _unlink(folder, entry.name):
                try:
                    _retry_without_flags(folder, entry.name, lambda name, fd: os.rmdir(name, dir_fd=fd))
                except OSError as exc:
                    if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                    return entry.name
    return None


def _unlink(folder: int, name: str) -> bool:
    """False when ``name`` is a folder."""
    if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        return False
    _retry_without_flags(folder, name, lambda name, fd: os.unlink(name, dir_fd=fd))
    return True


def _retry_without_flags(folder: int, name: str, act: Callable[[str, int], None]) -> None:
    try:
        act(name, folder)
    except PermissionError:
        _clear_flags(folder)
        with contextlib.suppress(OSError):
            fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            try:
                _clear_flags(fd)
            finally:
                os.close(fd)
        act(name, folder)


def _clear_flags(fd: int) -> None:
    if not stat.S_ISREG(os.fstat(fd).st_mode) and not stat.S_ISDIR(os.fstat(fd).st_mode):
        return
    flags = array.array("i", [0])
    with contextlib.suppress(OSError):
        fcntl.ioctl(fd, _GETFLAGS, flags)
        flags[0] &= _KEPT_FLAGS
        fcntl.ioctl(fd, _SETFLAGS, flags)
