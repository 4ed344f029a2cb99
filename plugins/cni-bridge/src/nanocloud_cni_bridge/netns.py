"""Network namespaces, each held by a bind mount of its own below one folder.

A namespace is made by a thread of ours that ends at once, never by fork: the server has many threads and an open
database. The folder is a shared mount, so that taking a namespace's mount away here takes it away in every mount
namespace that copied it; a private copy would keep the namespace alive.

A crash leaves a file without a mount, or a mount nobody recorded; ``remove`` takes both. Source: namespaces(7),
mount_namespaces(7); iproute2's ``ip netns`` does the same below /run/netns.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_MS_BIND, _MS_SHARED = 4096, 1 << 20
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_NS_GET_NSTYPE = 0xB703  # ioctl(2) of nsfs: which kind of namespace a descriptor is
_SELF = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def in_own_thread(work: Callable[[], T]) -> T:
    """Run ``work`` in a thread that ends with it, so that it may change its network namespace."""
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as exc:  # handed to the waiting thread, below
            failure.append(exc)

    thread = threading.Thread(target=run, name="nanocloud-netns", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def unshare() -> None:
    """Move the calling thread to a new network namespace; only inside ``in_own_thread``."""
    _check(_libc.unshare(_CLONE_NEWNET), "unshare")


def enter(path: Path) -> None:
    """Move the calling thread to the namespace at ``path``; only inside ``in_own_thread``."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        _check(_libc.setns(descriptor, _CLONE_NEWNET), f"setns {path}")
    finally:
        os.close(descriptor)


def descriptor_of_thread() -> int:
    """An open descriptor of the calling thread's namespace; the caller closes it."""
    return os.open(_SELF, os.O_RDONLY | os.O_CLOEXEC)


def pin(path: Path) -> None:
    """Keep the calling thread's namespace alive at ``path``, which must not exist."""
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400))
    try:
        _check(_libc.mount(_SELF.encode(), os.fsencode(path), None, _MS_BIND, None), f"mount {path}")
    except OSError:
        path.unlink()
        raise


def is_namespace(path: Path) -> bool:
    """Whether ``path`` holds a network namespace, asked of the kernel."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:
        return False
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Take the mount, or the mounts, and the file away; nothing there is no error."""
    _unmount(path)
    path.unlink(missing_ok=True)


def prepare(folder: Path) -> None:
    """Make ``folder`` a shared mount of itself. Each step may have been the last before a crash."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = _mount_fields(folder)
    if flags is None:
        _check(_libc.mount(os.fsencode(folder), os.fsencode(folder), None, _MS_BIND, None), f"mount {folder}")
    if flags is None or not any(field.startswith("shared:") for field in flags):
        _check(_libc.mount(None, os.fsencode(folder), None, _MS_SHARED, None), f"mount --make-shared {folder}")


def purge(folder: Path) -> None:
    """Remove every namespace and the folder itself."""
    if not folder.exists():
        return
    for path in folder.iterdir():
        remove(path)
    _unmount(folder)
    # What was created before the folder became a mount lies below it.
    for path in folder.iterdir():
        remove(path)
    folder.rmdir()


def _unmount(path: Path) -> None:
    # Detached: a process that still lives in the namespace keeps it, but not the mount.
    while _libc.umount2(os.fsencode(path), _MNT_DETACH | _UMOUNT_NOFOLLOW) == 0:
        pass
    if (number := ctypes.get_errno()) not in (errno.EINVAL, errno.ENOENT):
        raise OSError(number, os.strerror(number), f"umount {path}")


def _mount_fields(folder: Path) -> list[str] | None:
    """The optional fields of the topmost mount at ``folder``; None where there is none. Source: proc(5), mountinfo."""
    wanted = str(folder.resolve())
    found = None
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4]) == wanted:
            found = fields[6 : fields.index("-")]
    return found
