"""Users of an image, by its own ``/etc/passwd`` and ``/etc/group``. It decides what they are: no link is followed.

Source: passwd(5), group(5); OCI image specification 1.0, config.md, ``User``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import attrs

from nanocloud.errors import InvalidError

_MOST_BYTES = 1 << 20


@attrs.frozen
class User:
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    """Supplementary ones: where a user is named and its group is not."""
    home: str = "/"


def find_user(rootfs: Path, text: str) -> User:
    """``user``, ``uid``, ``user:group`` or ``uid:gid``; empty is root. A number needs no entry.

    Raises:
        InvalidError: the image has no such user or group.
    """
    name, colon, group = text.partition(":")
    user = _user(rootfs, name or "0", text)
    if colon:
        return attrs.evolve(user, gid=_group(rootfs, group, text), groups=())
    return user


def _user(rootfs: Path, name: str, text: str) -> User:
    entries = list(_entries(rootfs, "passwd", 7))
    # A name wins over a number: there may be a user called "1000".
    for place in (0, 2):
        for entry in entries:
            if entry[place] == name and entry[2].isdecimal() and entry[3].isdecimal():
                groups = tuple(int(g[2]) for g in _entries(rootfs, "group", 4) if entry[0] in g[3].split(","))
                return User(_number(entry[2], text), _number(entry[3], text), groups, entry[5] or "/")
    if not name.isdecimal():
        raise InvalidError(f"user {text!r}: the image's /etc/passwd has no {name!r}")
    return User(_number(name, text))


def _group(rootfs: Path, name: str, text: str) -> int:
    for entry in _entries(rootfs, "group", 4):
        if entry[0] == name and entry[2].isdecimal():
            return _number(entry[2], text)
    if not name.isdecimal():
        raise InvalidError(f"user {text!r}: the image's /etc/group has no {name!r}")
    return _number(name, text)


def _number(digits: str, text: str) -> int:
    number = int(digits[:20])
    if number >= 2**32 - 1:  # the last one means "leave it" to chown(2)
        raise InvalidError(f"user {text!r}: {digits[:20]} is above 4294967294")
    return number


def _entries(rootfs: Path, name: str, fields: int) -> Iterator[list[str]]:
    """The lines of a file in the image's ``/etc`` that have so many fields."""
    try:
        etc = os.open(rootfs / "etc", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        # O_NONBLOCK: it may be a pipe that nobody writes to.
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=etc)
    except OSError:
        return
    finally:
        os.close(etc)
    with os.fdopen(file, errors="replace") as lines:
        if stat.S_ISREG(os.fstat(file).st_mode):
            for line in lines.read(_MOST_BYTES).splitlines():
                entry = line.split(":")
                if len(entry) == fields:
                    yield entry
