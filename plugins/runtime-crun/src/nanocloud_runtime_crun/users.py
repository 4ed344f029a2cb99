"""Which numbers a user of an image has: ``user``, ``uid``, ``user:group`` or ``uid:gid``.

Names are looked up in the image's own ``/etc/passwd`` and ``/etc/group``. A number needs no entry; where it has one it
gets that entry's group and home, as container engines do it. Source: OCI image specification, config.md, ``User``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from nanocloud.errors import FieldError, InvalidError
from nanocloud_runtime_crun.rootdir import read_file

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_ID = 2**32 - 2  # 2**32 - 1 means "do not change" in chown(2) and setuid(2)
_MAX_GROUPS = 1024


@attrs.frozen
class User:
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"


def resolve(root: int, text: str) -> User:
    """The user ``text`` of the image whose root folder is open as ``root``.

    Raises:
        InvalidError: the image has no such user or group, or the number is out of range.
    """
    name, colon, group = text.partition(":")
    if colon and not group:
        raise _invalid(text, "a group after the colon")
    entry = _find_user(root, name or "0")
    if entry is None:
        if not name.isdecimal():
            raise _invalid(text, f"a number, or a user of the image's /etc/passwd; it has no {name!r}")
        entry = User(uid=_number(text, name))
        name = ""
    elif name.isdecimal() or not name:
        name = entry_name(root, entry.uid)
    if group:
        return attrs.evolve(entry, gid=_find_group(root, text, group))
    return attrs.evolve(entry, groups=_groups_of(root, name))


def entry_name(root: int, uid: int) -> str:
    for fields in _entries(root, "/etc/passwd", 7):
        if fields[2] == str(uid):
            return fields[0]
    return ""


def _find_user(root: int, wanted: str) -> User | None:
    for fields in _entries(root, "/etc/passwd", 7):
        if wanted == fields[0] or (wanted.isdecimal() and fields[2].isdecimal() and int(wanted) == int(fields[2])):
            home = fields[5] if fields[5].startswith("/") else "/"
            return User(uid=_number(wanted, fields[2]), gid=_number(wanted, fields[3]), home=home)
    return User() if wanted == "0" else None


def _find_group(root: int, text: str, wanted: str) -> int:
    for fields in _entries(root, "/etc/group", 4):
        if wanted == fields[0]:
            return _number(text, fields[2])
    if not wanted.isdecimal():
        raise _invalid(text, f"a number, or a group of the image's /etc/group; it has no {wanted!r}")
    return _number(text, wanted)


def _groups_of(root: int, name: str) -> tuple[int, ...]:
    if not name:
        return ()
    found = {
        int(fields[2])
        for fields in _entries(root, "/etc/group", 4)
        if name in fields[3].split(",") and fields[2].isdecimal() and int(fields[2]) <= _MAX_ID
    }
    return tuple(sorted(found))[:_MAX_GROUPS]


def _entries(root: int, path: str, fields: int) -> Iterator[list[str]]:
    for line in read_file(root, path).splitlines():
        entry = line.split(":")
        if len(entry) >= fields and entry[0]:
            yield entry


def _number(text: str, digits: str) -> int:
    # isdecimal alone would let digits of other scripts through, which int() takes as well.
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > 10 or int(digits) > _MAX_ID:
        raise _invalid(text, f"numbers from 0 to {_MAX_ID}, not {digits!r}")
    return int(digits)


def _invalid(text: str, allowed: str) -> InvalidError:
    message = f"user {text!r} cannot be used: it takes {allowed}"
    return InvalidError(message, [FieldError("user", f"takes {allowed}")])
