"""One server at a time: a lock that the kernel drops with the process, however that ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nanocloud.errors import LockedError, UnavailableError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold ``<folder>/lock``, in which the holder's process id stands.

    Raises:
        LockedError: another process holds it; names folder and process.
        UnavailableError: the folder cannot be written.
    """
    try:
        descriptor = _acquired(folder)
    except OSError as exc:
        raise UnavailableError(f"{folder} cannot be locked: {exc.strerror}") from exc
    try:
        yield
    finally:
        os.close(descriptor)


def _acquired(folder: Path) -> int:
    # Close-on-exec: a container's monitor that inherited it would hold the lock for days.
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode().strip()
        os.close(descriptor)
        raise LockedError(f"{folder} is in use by process {holder}", hint="stop that server first") from None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
