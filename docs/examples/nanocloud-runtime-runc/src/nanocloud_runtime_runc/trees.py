"""Removing trees that containers have written: any names, any depth, links to anywhere, immutable flags.

Every step is relative to an open folder and follows nothing, so that no link leads out of the tree. Only the folders on
the way down are open, and deep ones are moved up to the root of the tree: neither recursion nor descriptors run out.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import struct
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602
_KEPT = 0x10 | 0x20
"""FS_IMMUTABLE_FL and FS_APPEND_FL, of ioctl_iflags(2)."""


def remove_tree(path: Path) -> None:
    """Remove a folder and all in it, or a file; nothing where nothing is.

    Raises:
        OSError: something cannot be removed.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()
            return
        root = os.open(path, _FOLDER)
        try:
            _empty(root)
        finally:
            os.close(root)
        path.rmdir()


def _empty(root: int) -> None:
    """Remove what is in the open folder. Folders in folders are moved up first: none is deep when its turn comes."""
    moved = 0
    while names := os.listdir(root):
        for name in names:
            if not _is_folder(root, name):
                _unlink(root, name)
                continue
            _make_changeable(root, name)
            inner = os.open(name, _FOLDER, dir_fd=root)
            try:
                _make_changeable(inner)
                for entry in os.listdir(inner):
                    if _is_folder(inner, entry):
                        _make_changeable(inner, entry)
                        moved += 1
                        os.rename(entry, _free_name(root, moved), src_dir_fd=inner, dst_dir_fd=root)
                    else:
                        _unlink(inner, entry)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=root)


def _free_name(root: int, number: int) -> str:
    """A name that the folder does not hold; containers may have chosen any."""
    name = f"moved-{number}"
    while _exists(root, name):
        name += "-"
    return name


def _exists(folder: int, name: str) -> bool:
    try:
        os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    return True


def _is_folder(folder: int, name: str) -> bool:
    return stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode)


def _unlink(folder: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except PermissionError:
        _make_changeable(folder, name)
        os.unlink(name, dir_fd=folder)


def _make_changeable(folder: int, name: str | None = None) -> None:
    """Take off the flags that hold even against root, where it is a file or a folder that has some."""
    with contextlib.suppress(OSError):
        opened = folder
        if name is not None:
            if stat.S_IFMT(os.lstat(name, dir_fd=folder).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
                return  # opening a device may do something
            opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        try:
            flags = struct.unpack("l", fcntl.ioctl(opened, _GET_FLAGS, bytes(8)))[0]
            if flags & _KEPT:
                fcntl.ioctl(opened, _SET_FLAGS, struct.pack("l", flags & ~_KEPT))
        finally:
            if name is not None:
                os.close(opened)
