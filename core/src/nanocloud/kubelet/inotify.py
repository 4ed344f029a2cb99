"""Waiting for a file to change, by inotify(7): no polling, and nothing to clean up but a descriptor."""

from __future__ import annotations

import ctypes
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_IN_MODIFY, _IN_CREATE, _IN_MOVED_TO, _IN_DELETE = 0x2, 0x100, 0x80, 0x200
_EVENTS = _IN_MODIFY | _IN_CREATE | _IN_MOVED_TO | _IN_DELETE


@asynccontextmanager
async def changes(folder: Path) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Watch ``folder``; the function given waits until something in it changed since the last wait (or the start)."""
    descriptor: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "inotify_init1")
    try:
        if _libc.inotify_add_watch(descriptor, os.fsencode(folder), _EVENTS) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))

        async def wait() -> None:
            await trio.lowlevel.wait_readable(descriptor)
            os.read(descriptor, 65536)  # which file it was does not matter: the reader looks for itself

        yield wait
    finally:
        os.close(descriptor)
