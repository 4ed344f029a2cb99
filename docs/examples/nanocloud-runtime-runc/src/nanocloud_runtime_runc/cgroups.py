"""Control groups: the containers' and their monitors', below a parent of this node's own.

runc makes ``<parent>/<id>`` and sets the limits; monitors are in ``<parent>/_monitors/<id>``. This looks into those
groups, empties them and removes them, in whichever layout the machine has: version 2; version 1, a folder a hierarchy;
or hybrid, which is version 1 and ``unified`` beside it.

Source: cgroups(7); the kernel's cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import attrs
import trio

from nanocloud_runtime_runc.processes import Process

ROOT = Path("/sys/fs/cgroup")
MONITORS = "_monitors"
"""No container has this name: ids begin with a letter or a digit."""
_AGAIN_SECONDS = 0.005


def monitor_of(name: str) -> str:
    """The group of a container's monitor."""
    return f"{MONITORS}/{name}"


@attrs.frozen
class Groups:
    parent: str
    """Absolute within each hierarchy: ``/nanocloud-runc``."""
    root: Path = ROOT

    def path_of(self, name: str) -> str:
        """A group's path within each hierarchy, as runc wants it."""
        return f"{self.parent}/{name}"

    def adopt_monitor(self, pid: int, name: str) -> None:
        """Take a container's monitor out of the server's group: who stops the server's service kills that whole group.

        What the monitor starts is in its new group, too, until runc moves it: so makers are found that a killed server
        has left. One hierarchy does: the one by which service managers know what belongs to a service.
        """
        for hierarchy in ("systemd", "unified", "."):
            if (self.root / hierarchy / "cgroup.procs").exists():
                group = self.root / hierarchy / self.path_of(monitor_of(name)).lstrip("/")
                group.mkdir(parents=True, exist_ok=True)
                (group / "cgroup.procs").write_text(str(pid))
                return

    def members(self, name: str) -> list[Process]:
        """The living processes of a container's group and of groups inside it, in whichever hierarchy they are."""
        found: dict[int, Process] = {}
        for folder in self._folders(name):
            for file in folder.rglob("cgroup.procs"):
                with contextlib.suppress(OSError):
                    for pid in map(int, file.read_text().split()):
                        if pid not in found and (process := Process.find(pid)):
                            found[pid] = process
        return list(found.values())

    async def empty(self, name: str) -> None:
        """Kill what is in the group until nothing is; what forks meanwhile is found the next time around."""
        while members := self.members(name):
            for process in members:
                process.send(signal.SIGKILL)
            await trio.sleep(_AGAIN_SECONDS)

    async def remove(self, name: str) -> None:
        """Remove an empty group, from its leaves; a process that was just killed holds it until it has been reaped."""
        for folder in self._folders(name):
            while not _rmdir_all(folder):  # noqa: ASYNC110 - nobody tells when it is free
                await trio.sleep(_AGAIN_SECONDS)

    def remove_parent(self) -> None:
        """Remove the node's parent groups as far as they are empty: another node may have its own in there."""
        for folder in (*self._folders(MONITORS), *self._folders("")):
            inner = folder
            while inner != self.root and inner.parent != self.root and _rmdir(inner):
                inner = inner.parent

    def out_of_memory(self, name: str) -> bool:
        """Whether the kernel has killed a process of the container for want of memory. Asked before it is removed."""
        for folder in self._folders(name):
            for file in ("memory.events", "memory.oom_control"):
                with contextlib.suppress(OSError):
                    fields = dict(line.split(" ", 1) for line in (folder / file).read_text().splitlines())
                    if int(fields.get("oom_kill", 0)) > 0:
                        return True
        return False

    def limits_swap(self) -> bool:
        """Whether swap can be limited: kernels with version 1 and without swap accounting lack the file."""
        version_1 = self.root / "memory" / "memory.usage_in_bytes"
        return not version_1.exists() or version_1.with_name("memory.memsw.usage_in_bytes").exists()

    def _folders(self, name: str) -> Iterator[Path]:
        seen = set()
        for hierarchy in (self.root, *self.root.iterdir()):
            # ``cpu`` may be a link to ``cpu,cpuacct``. On version 2 a folder here is a group, and no hierarchy.
            real = hierarchy.resolve()
            folder = real / self.path_of(name).strip("/")
            if real not in seen and folder.is_dir() and (real == self.root or not self._is_version_2()):
                seen.add(real)
                yield folder

    def _is_version_2(self) -> bool:
        return (self.root / "cgroup.controllers").exists()


def _rmdir_all(folder: Path) -> bool:
    """Remove a group with all inside it; False if a process still holds one of them."""
    inner = sorted((path for path in folder.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts))
    return all(map(_rmdir, (*inner, folder)))


def _rmdir(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
