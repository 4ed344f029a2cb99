"""The folder of a storage and the lock that lets one process in.

The lock is ``flock`` on the file ``lock``, which holds the owner's process id for whoever is refused. The kernel drops
it with the process, however that ends, so nothing stale can stay. The file is never removed: a remove would let two
processes lock two files of one name.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nanocloud.errors import LockedError, ProviderError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Make ``folder`` if need be (mode 0700, also if it was there before) and own it while the body runs.

    Raises:
        LockedError: another opener has it; names the folder and the process.
        ProviderError: it cannot be made or entered.
    """
    try:
        _make(folder)
        # Close-on-exec, as all of Python's descriptors: a container monitor must not inherit the lock.
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as exc:
        raise ProviderError(f"the storage folder {folder} cannot be used: {exc.strerror}") from exc
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise LockedError(
                f"the storage folder {folder} is in use by process {holder}",
                hint="one server at a time may use a state folder: stop the other one first",
            ) from None
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        except OSError as exc:
            raise ProviderError(f"the storage folder {folder} cannot be used: {exc.strerror}") from exc
        yield
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make(folder: Path) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
        sync_folder(path.parent)
    folder.chmod(0o700)
