"""An image's files as its container sees them, read from the unpacked layers without mounting anything.

Links are followed within the image only: every step is a lookup below the layers' own folders, and a link's text is
resolved against the image's root.
"""

from __future__ import annotations

import os
import posixpath
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_FILE_BYTES = 1024 * 1024
_MAX_LINKS = 40


@attrs.frozen(kw_only=True)
class Entry:
    """A file or folder of the image that no link stands for."""

    path: str
    """In the image, links resolved."""
    state: os.stat_result = attrs.field(repr=False)
    folders: tuple[Path, ...]
    """Where it lies, topmost first; more than one for a folder that several layers have."""

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.state.st_mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.state.st_mode)

    def lets(self, uid: int, gid: int, *, execute: bool = False) -> bool:
        """Whether that user may read it, and run or enter it; root may read everything."""
        wanted = 5 if execute else 4
        mode = self.state.st_mode
        if uid == 0:
            return not execute or bool(mode & 0o111)
        shift = 6 if uid == self.state.st_uid else 3 if gid == self.state.st_gid else 0
        return (mode >> shift) & wanted == wanted


class ImageTree:
    """Layers, lowest first, as an image provider unpacked them."""

    def __init__(self, layers: Sequence[Path]) -> None:
        self._roots = tuple(reversed(layers))

    def find(self, path: str) -> Entry | None:
        """What is at ``path``, links followed; None where there is nothing."""
        for _ in range(_MAX_LINKS):
            found = self._walk(posixpath.normpath("/" + path.lstrip("/")))
            if not isinstance(found, str):
                return found
            path = found
        return None

    def read(self, path: str) -> bytes | None:
        """The first MiB of a regular file."""
        entry = self.find(path)
        if entry is None or not entry.is_file:
            return None
        descriptor = os.open(entry.folders[0], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            return file.read(MAX_FILE_BYTES)

    def names(self, path: str) -> list[str]:
        """What a folder holds, sorted; nothing where there is none."""
        entry = self.find(path)
        if entry is None or not entry.is_folder:
            return []
        listed = {name for folder in entry.folders for name in os.listdir(folder)}
        return sorted(name for name in listed if _merged(entry.folders, name) is not None)

    def _walk(self, path: str) -> Entry | str | None:
        """The entry, or the path to go on with where a link is on the way."""
        folders, at = self._roots, "/"
        state = os.lstat(folders[0]) if folders else None
        parts = [part for part in path.split("/") if part]
        for index, name in enumerate(parts):
            found = _merged(folders, name)
            if found is None:
                return None
            folders, state = found
            if stat.S_ISLNK(state.st_mode):
                target = str(folders[0].readlink())
                return posixpath.join(at, target, *parts[index + 1 :])
            if not stat.S_ISDIR(state.st_mode) and index < len(parts) - 1:
                return None
            at = posixpath.join(at, name)
        return Entry(path=at, state=state, folders=folders) if state is not None else None


def _merged(folders: tuple[Path, ...], name: str) -> tuple[tuple[Path, ...], os.stat_result] | None:
    """One name of a merged folder: the topmost entry counts, and folders below a folder join in."""
    found: list[Path] = []
    state: os.stat_result | None = None
    for folder in folders:
        try:
            here = os.lstat(folder / name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if stat.S_ISCHR(here.st_mode) and here.st_rdev == 0:  # an overlay whiteout
            break
        if state is None:
            state = here
        elif not stat.S_ISDIR(here.st_mode):
            break
        found.append(folder / name)
        if not stat.S_ISDIR(state.st_mode) or _hides_lower(folder / name):
            break
    return (tuple(found), state) if state is not None else None


def _hides_lower(folder: Path) -> bool:
    try:
        return os.getxattr(folder, "trusted.overlay.opaque", follow_symlinks=False) == b"y"
    except OSError:
        return False
