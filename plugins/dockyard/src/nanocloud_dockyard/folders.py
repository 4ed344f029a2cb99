"""Walks a tree by folder descriptors, one component at a time, following no link: nothing it opens lies outside.

The descriptors from the root to the folder used last stay open, for entries of a tar come folder by folder.
Imported by the unpacking child: standard library only.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from nanocloud_dockyard.tarstream import LayerEntryError, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OPAQUE_XATTR = "trusted.overlay.opaque"
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
WHITEOUT_DEVICE = os.makedev(0, 0)


def is_whiteout(found: os.stat_result) -> bool:
    """Whether overlayfs reads it as "what lower layers have here is gone"."""
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == WHITEOUT_DEVICE


def lstat(name: bytes, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


class Folders:
    """One walker over the tree below ``root_fd``. ``close`` it; the root stays the caller's."""

    def __init__(self, root_fd: int, imply: Callable[[bytes], None]) -> None:
        self._path: list[bytes] = []
        self._fds = [root_fd]
        self._imply = imply

    def open(self, path: Sequence[bytes], *, create: bool) -> int:
        """The descriptor of the folder at ``path``, good until the next call.

        Args:
            path: components below the root; none of them is empty, ``.`` or ``..``.
            create: make missing folders (0755, root) and tell ``imply`` of each before.

        Raises:
            LayerEntryError: a component is a link or no folder, or is missing and ``create`` is false.
        """
        shared = 0
        for have, want in zip(self._path, path, strict=False):
            if have != want:
                break
            shared += 1
        self._cut(shared)
        for name in path[shared:]:
            self._fds.append(self._enter(name, create=create))
            self._path.append(name)
        return self._fds[-1]

    def close(self) -> None:
        self._cut(0)

    def _cut(self, depth: int) -> None:
        while len(self._path) > depth:
            self._path.pop()
            os.close(self._fds.pop())

    def _enter(self, name: bytes, *, create: bool) -> int:
        folder = self._fds[-1]
        try:
            return os.open(name, _OPEN_FOLDER, dir_fd=folder)
        except FileNotFoundError:
            if not create:
                raise LayerEntryError(f"{self._shown(name)} does not exist in this layer") from None
        except NotADirectoryError:
            found = lstat(name, folder)
            if not create or found is None or not is_whiteout(found):
                raise LayerEntryError(f"{self._shown(name)} is a link or no folder; nothing goes through it") from None
        self._imply(b"/".join([*self._path, name]))
        return make_folder(name, folder)

    def _shown(self, name: bytes) -> str:
        return shown(b"/".join([*self._path, name]))


def make_folder(name: bytes, folder: int) -> int:
    """Make and open an empty folder; in the place of a whiteout it becomes opaque, which says the same."""
    found = lstat(name, folder)
    opaque = found is not None and is_whiteout(found)
    if opaque:
        os.unlink(name, dir_fd=folder)
    os.mkdir(name, 0o755, dir_fd=folder)
    made = os.open(name, _OPEN_FOLDER, dir_fd=folder)
    os.fchmod(made, 0o755)  # whatever the umask
    if opaque:
        os.setxattr(made, OPAQUE_XATTR, b"y")
    return made
