"""What crun and conmon see of the host: a mount namespace that holds what they need and nothing else.

A process keeps every mount of its namespace busy. A monitor that lived in the host's namespace, or in a plain copy of
it, would hold the loop device of each volume and each network namespace that existed when its container started, long
after they were unmounted. So:

- The *base view* is made once, when the provider opens: the host's root file system without the mounts below it, plus
  ``/proc``, ``/sys``, the cgroup hierarchies, ``/dev``, the tmpfs of this runtime and the mounts that the programs
  live on. Everything in it is private: nothing propagates in either direction.
- A *container's view* is a copy of the base view, plus detached copies of the mounts that this container uses, all
  below its own folder. Its monitor lives in it; it ends, with all its mounts, when monitor and container have ended,
  even when the server was killed. Nothing of it is ever in the host's mount table.

On a hybrid cgroup layout whose version 2 part owns controllers crun refuses to work (1.8.1: "cgroups in hybrid mode
not supported"). In the view an empty tmpfs lies over that part, so crun sees plain version 1 and the machine stays as
it is. All the same crun writes a folder for each container there, which goes with the container. See ``cgroups`` for
what is found on the host.

These functions change the calling thread's namespace: they run in a thread of their own (``_threads``).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from nanocloud_runtime_crun import _syscalls as sys

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc")
_KERNEL = ("/proc", "/sys", "/dev")
_COVER_OPTIONS = "mode=0755,size=64m"  # a page or two for each container that is there


def mount_points(mountinfo: str) -> list[str]:
    """The mount points of a ``mountinfo`` file (proc(5)), parents first, each once, with octal escapes undone."""
    points = {line.split(" ", 5)[4] for line in mountinfo.splitlines() if line}
    return sorted((_unescape(point) for point in points), key=lambda point: (point.count("/"), point))


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    return text.encode().decode("unicode_escape").encode("latin-1").decode(errors="surrogateescape")


def needed_mounts(points: Iterable[str], paths: Iterable[str], cgroup_root: str) -> list[str]:
    """Those of ``points`` that a program meets on its way to one of ``paths``, and all cgroup hierarchies."""
    wanted = [path.rstrip("/") + "/" for path in paths]
    under_cgroup = cgroup_root.rstrip("/") + "/"
    return [
        point
        for point in points
        if point != "/"
        and (any(path.startswith(point + "/") for path in wanted) or (point + "/").startswith(under_cgroup))
    ]


@attrs.frozen
class BaseView:
    """Descriptors, which ``close`` closes."""

    namespace: int
    cover: int | None
    """The folder that crun sees instead of the one that is hidden."""

    def close(self) -> None:
        os.close(self.namespace)
        if self.cover is not None:
            os.close(self.cover)


def make_base_view(
    *, stage: Path, programs: Sequence[Path], runtime_dir: Path, cgroup_root: Path, hide: Path | None
) -> BaseView:
    """Build the base view; the caller's thread stays in it.

    ``stage`` is an empty folder to build it on; ``hide`` is a folder that shows empty in the view.
    """
    sys.unshare(sys.CLONE_NEWNS)
    sys.mount("", "/", "", sys.MS_REC | sys.MS_PRIVATE)  # from here on nothing reaches the host
    paths = [os.path.realpath(path) for path in (*_PROGRAMS, *map(str, programs))]
    paths += [*_KERNEL, os.fspath(cgroup_root), os.fspath(runtime_dir)]
    points = mount_points(Path("/proc/thread-self/mountinfo").read_text(errors="surrogateescape"))
    with contextlib.ExitStack() as opened:
        copies: list[tuple[str, int]] = []
        for point in ["/", *needed_mounts(points, paths, os.fspath(cgroup_root))]:
            # A mount over one of its parents may hide a mount point.
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                copies.append((point, sys.open_tree(point)))
                opened.callback(os.close, copies[-1][1])
        for point, fd in copies:
            sys.move_mount(fd, os.fspath(stage) if point == "/" else f"{stage}{point}")
    os.chdir(stage)
    sys.pivot_root(".", ".")  # the old root now lies on top of the new one ...
    sys.umount(".", sys.MNT_DETACH)  # ... and goes, with every mount that was not copied
    os.chdir("/")
    cover = None
    if hide is not None:
        sys.mount("tmpfs", os.fspath(hide), "tmpfs", sys.MS_NOSUID | sys.MS_NODEV | sys.MS_NOEXEC, _COVER_OPTIONS)
        cover = os.open(hide, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return BaseView(os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC), cover)


def enter(base: int) -> None:
    """Put the calling thread into the base view; its working directory becomes ``/`` and is its own."""
    sys.unshare(sys.CLONE_FS)
    # Of this thread alone now. crun makes missing mount points with it, and a server's strict umask would close the
    # folders above them to the container's user.
    os.umask(0o022)
    sys.setns(base, sys.CLONE_NEWNS)


@attrs.frozen
class Borrowed:
    """A copy of one host mount, on its way into a container's view."""

    fd: int
    target: Path


def borrow(source: Path, target: Path) -> Borrowed:
    """Copy the mount at ``source``, alone; ``target`` is made to fit: a folder, or an empty file."""
    fd = sys.open_tree(source)
    try:
        if os.path.isdir(source):  # noqa: PTH112  # the hot path: no Path object needed
            target.mkdir(mode=0o700)
        else:
            target.touch(mode=0o600)
    except BaseException:
        os.close(fd)
        raise
    return Borrowed(fd, target)


def enter_own(base: int, mounts: Iterable[Borrowed]) -> None:
    """Put the calling thread into a new view: the base view plus ``mounts``."""
    enter(base)
    sys.unshare(sys.CLONE_NEWNS)
    for mount in mounts:
        sys.move_mount(mount.fd, os.fspath(mount.target))
    # A copy of a shared mount is shared with the host until this.
    sys.mount("", "/", "", sys.MS_REC | sys.MS_PRIVATE)


def mount_overlay(lowers: Sequence[Path], store: Path, target: Path) -> None:
    """Mount the container's root: ``lowers`` (lowest first) below ``store/upper``.

    Layers are named by descriptors, so their number is not bounded by the 4096 bytes that mount(2) takes, and no
    path needs escaping. ``volatile``: a sync inside the container does not reach the disk, for the layer is thrown
    away with the container and, after a crash of the host, before anything could read it.
    """
    fds: list[int] = []

    def named(path: Path) -> str:
        fds.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        return f"/proc/self/fd/{fds[-1]}"

    try:
        lower = ":".join(named(path) for path in reversed(lowers))
        options = f"lowerdir={lower},upperdir={named(store / 'upper')},workdir={named(store / 'work')},volatile"
        sys.mount("overlay", os.fspath(target), "overlay", sys.MS_NODEV | sys.MS_NOSUID, options)
    finally:
        for fd in fds:
            os.close(fd)
