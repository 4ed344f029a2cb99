"""Which numeric user an image runs as, read from its layers without following anything out of them.

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


def numeric_user(user: str, layers: Sequence[Path]) -> tuple[int, int]:
    """uid and gid for an image's ``user`` (``name``, ``uid``, either with ``:group`` or ``:gid``).

    Raises:
        InvalidError: a name that the image's ``/etc/passwd`` or ``/etc/group`` does not have.
    """
    name, _, group = user.partition(":")
    if not name:
        return 0, _group(group, layers) if group else 0
    entry = _find(name, 2, _lines(layers, "passwd"))
    if entry is None and not name.isdecimal():
        raise InvalidError(f"the image has no user {name!r} in /etc/passwd")
    uid = int(entry[2]) if entry else int(name)
    gid = int(entry[3]) if entry else 0
    return uid, _group(group, layers) if group else gid


def _group(group: str, layers: Sequence[Path]) -> int:
    entry = _find(group, 2, _lines(layers, "group"))
    if entry is None and not group.isdecimal():
        raise InvalidError(f"the image has no group {group!r} in /etc/group")
    return int(entry[2]) if entry else int(group)


def _find(wanted: str, number: int, lines: list[str]) -> list[str] | None:
    """The entry whose name or number is ``wanted``; a broken line is no entry."""
    for line in lines:
        fields = line.split(":")
        if len(fields) > 3 and wanted in (fields[0], fields[number]) and all(f.isdecimal() for f in fields[2:3]):
            return fields
    return None


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
