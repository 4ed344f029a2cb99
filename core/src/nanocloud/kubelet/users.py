"""What the kubelet must know of an image's files, read from its layers without following anything out of them.

Which numeric user it runs as, and whether it has a script.

A fresh volume belongs to root; a service that runs as its own user could not write there. So the kubelet gives the
root of an empty volume to the container's user, as Kubernetes does with ``fsGroup``.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from nanocloud.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_LIMIT_BYTES = 1024 * 1024
_LAST_ID, _LONGEST_ID = 2**32 - 2, 10  # 2**32 - 1 means "nobody in particular" to the kernel


def numeric_user(user: str, layers: Sequence[Path]) -> tuple[int, int]:
    """uid and gid for an image's ``user`` (``name``, ``uid``, either with ``:group`` or ``:gid``).

    Raises:
        InvalidError: a name that the image's ``/etc/passwd`` or ``/etc/group`` does not have.
    """
    name, _, group = user.partition(":")
    if not name:
        return 0, _group(group, layers) if group else 0
    entry = _find(name, _lines(layers, "passwd"), numbers=slice(2, 4))
    if entry is None and not name.isdecimal():
        raise InvalidError(f"the image has no user {name[:80]!r} in /etc/passwd")
    uid = _number(entry[2] if entry else name, "user")
    gid = _number(entry[3], "group") if entry else 0
    return uid, _group(group, layers) if group else gid


def _group(group: str, layers: Sequence[Path]) -> int:
    entry = _find(group, _lines(layers, "group"), numbers=slice(2, 3))
    if entry is None and not group.isdecimal():
        raise InvalidError(f"the image has no group {group[:80]!r} in /etc/group")
    return _number(entry[2] if entry else group, "group")


def _find(wanted: str, lines: list[str], *, numbers: slice) -> list[str] | None:
    """The entry whose name or number is ``wanted``; a line without its ``numbers`` is no entry."""
    for line in lines:
        fields = line.split(":")
        if len(fields) > 3 and wanted in (fields[0], fields[2]) and all(f.isdecimal() for f in fields[numbers]):
            return fields
    return None


def _number(text: str, what: str) -> int:
    if len(text) > _LONGEST_ID or int(text) > _LAST_ID:
        raise InvalidError(f"the image runs as {what} {text[:20]}; the last number is {_LAST_ID}")
    return int(text)


def _lines(layers: Sequence[Path], name: str) -> list[str]:
    """``/etc/<name>`` of the topmost layer that has it as a regular file."""
    for layer in reversed(layers):
        content = _read(layer, name)
        if content is not None:
            return content.decode(errors="replace").splitlines()
    return []


def _read(layer: Path, name: str) -> bytes | None:
    folder = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        root = os.open(layer, folder)
    except OSError:
        return None
    try:
        etc = os.open("etc", folder, dir_fd=root)
        try:
            # O_NONBLOCK: a FIFO in the image must not hold the node.
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=etc)
        finally:
            os.close(etc)
    except OSError:
        return None
    finally:
        os.close(root)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return file.read(_LIMIT_BYTES)


def image_has(path: str, layers: Sequence[Path]) -> bool:
    """Whether the image has something at ``path`` (absolute, no link on the way): the topmost layer's word counts."""
    *folders, name = path.strip("/").split("/")
    for layer in reversed(layers):
        found = _lookup(layer, folders, name)
        if found is not None:
            return not stat.S_ISCHR(found.st_mode)  # an overlay whiteout is a character device
    return False


def _lookup(layer: Path, folders: Sequence[str], name: str) -> os.stat_result | None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    opened: list[int] = []
    try:
        opened.append(os.open(layer, flags))
        for folder in folders:
            opened.append(os.open(folder, flags, dir_fd=opened[-1]))
        return os.stat(name, dir_fd=opened[-1], follow_symlinks=False)
    except OSError:
        return None
    finally:
        for descriptor in opened:
            os.close(descriptor)


def own_fresh_volume(root: Path, uid: int, gid: int) -> None:
    """Give an empty volume's root folder to the user; a volume with data, or one given before, stays as it is."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        state = os.fstat(descriptor)
        if (state.st_uid, state.st_gid) == (0, 0) and (uid, gid) != (0, 0) and not os.listdir(descriptor):
            os.fchown(descriptor, uid, gid)
            os.fchmod(descriptor, 0o750)
    finally:
        os.close(descriptor)
