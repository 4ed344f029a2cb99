"""Look into a container's root without being led out of it.

The image decides what is a link and what is a file; ``openat2`` with RESOLVE_IN_ROOT makes every link, absolute or
with dots, end inside. Only regular files of a bounded size are read: a device or a pipe is never opened.
"""

from __future__ import annotations

import os
import stat

from nanocloud.errors import InvalidError
from nanocloud_runtime_crun._syscalls import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2

_RESOLVE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
_MAX_FILE_BYTES = 1024 * 1024


def read_file(root: int, path: str) -> str:
    """The text of ``path`` below the folder ``root``; empty where there is no such regular file."""
    try:
        fd = openat2(root, path, os.O_PATH, _RESOLVE)
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return ""
        with open(f"/proc/self/fd/{fd}", "rb") as file:  # noqa: PTH123  # the object itself, no second look-up
            data = file.read(_MAX_FILE_BYTES + 1)
    finally:
        os.close(fd)
    if len(data) > _MAX_FILE_BYTES:
        raise InvalidError(f"the image's {path} has more than {_MAX_FILE_BYTES} bytes")
    return data.decode(errors="replace")


def is_absent(root: int, path: str) -> bool:
    """True only where nothing is at ``path`` for certain."""
    try:
        os.close(openat2(root, path, os.O_PATH, _RESOLVE))
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
