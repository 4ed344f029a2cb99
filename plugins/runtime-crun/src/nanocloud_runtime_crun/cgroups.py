"""The host's cgroup layout, and the control groups of this runtime in it.

Three layouts exist. *Version 2*: one hierarchy at the root. *Version 1*: one hierarchy a controller below the root.
*Hybrid*: version 1 plus a version 2 hierarchy at ``unified``, which may own controllers; then crun 1.8.1 refuses to
work and the view hides that folder (see ``view``).

A container lives in ``<parent>/<id>`` of each hierarchy, its monitor in ``<parent>/_monitors/<id>``: outside the
server's own group, so that stopping the server's service unit stops neither.

Source: Linux Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from nanocloud.errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nanocloud.providers.runtime import Resources

MOUNT = Path("/sys/fs/cgroup")
MONITORS = "_monitors"
_PERIOD_MICROSECONDS = 100_000
_LEAST_QUOTA = 1_000  # the kernel takes no less than 1 ms a period
# The number of a device, and what a container may do with it: null, zero, full, random, urandom, tty, console, ptmx,
# pts, in that order; mknod for all, for a node gives nothing that opening it would not have to be allowed for.
_DEVICES = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, None))


@attrs.frozen(kw_only=True)
class Layout:
    """What the host has. ``hierarchies`` are the folders a group is made in, by name; version 2 has one, ``""``."""

    root: Path
    version: int
    hierarchies: tuple[str, ...]
    unified: Path | None = None
    """The version 2 part of a hybrid layout."""
    hide: Path | None = None
    """``unified`` where it owns controllers: crun must not see it."""

    @property
    def name(self) -> str:
        if self.version == 2:
            return "v2"
        return "hybrid" if self.unified else "v1"


def probe(root: Path = MOUNT) -> Layout:
    """Look at the host's layout.

    Raises:
        ProviderError: nothing there that a container could be limited with.
    """
    if (root / "cgroup.controllers").exists():
        return Layout(root=root, version=2, hierarchies=("",))
    names = []
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        # ``cpu`` may be a link to ``cpu,cpuacct``: the same hierarchy must not be counted twice.
        if folder.name != "unified" and not folder.is_symlink() and (folder / "cgroup.procs").exists():
            names.append(folder.name)
    if not any("memory" in name.split(",") for name in names):
        raise ProviderError(
            f"no cgroup hierarchy with the memory controller below {root}",
            hint="mount cgroup2 there, or the version 1 controllers below it",
        )
    unified: Path | None = root / "unified"
    if unified is None or not (unified / "cgroup.controllers").exists():
        return Layout(root=root, version=1, hierarchies=tuple(names))
    owns = bool((unified / "cgroup.controllers").read_text().split())
    return Layout(root=root, version=1, hierarchies=tuple(names), unified=unified, hide=unified if owns else None)


def oci_resources(
    layout: Layout, resources: Resources, *, all_devices: bool, can_filter_devices: bool
) -> dict[str, Any]:
    """``linux.resources`` of the OCI configuration."""
    limits: dict[str, Any] = {}
    if resources.memory_bytes is not None:
        limits["memory"] = {"limit": resources.memory_bytes}
        if layout.version == 2 or (layout.root / "memory/memory.memsw.limit_in_bytes").exists():
            # Memory and swap together: nothing of a limited container, secrets included, is swapped out.
            limits["memory"]["swap"] = resources.memory_bytes
    if resources.cpu_millicores is not None:
        quota = max(_LEAST_QUOTA, resources.cpu_millicores * _PERIOD_MICROSECONDS // 1000)
        shares = max(2, resources.cpu_millicores * 1024 // 1000)
        limits["cpu"] = {"quota": quota, "period": _PERIOD_MICROSECONDS, "shares": min(shares, 262_144)}
    if resources.pids is not None:
        limits["pids"] = {"limit": resources.pids}
    if can_filter_devices:
        limits["devices"] = [{"allow": True, "access": "rwm"}] if all_devices else _device_rules()
    return limits


def _device_rules() -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    for major, minor in _DEVICES:
        rule: dict[str, Any] = {"allow": True, "type": "c", "major": major, "access": "rwm"}
        rules.append(rule if minor is None else rule | {"minor": minor})
    return rules


def own_groups(text: str) -> dict[str, str]:
    """``/proc/self/cgroup`` as controller -> group; version 2 is ``""``."""
    groups: dict[str, str] = {}
    for line in text.splitlines():
        _, controllers, group = line.split(":", 2)
        for controller in controllers.split(","):
            groups[controller.removeprefix("name=")] = group
    return groups


@attrs.frozen
class Cgroups:
    """The groups below ``parent`` (``/nanocloud``) in every hierarchy of ``layout``."""

    layout: Layout
    parent: str

    def path(self, container: str) -> str:
        """As ``linux.cgroupsPath``."""
        return f"{self.parent}/{container}"

    def _folder(self, hierarchy: str, name: str = "") -> Path:
        return Path(f"{self.layout.root}/{hierarchy}{self.parent}/{name}")

    def _roots(self) -> list[Path]:
        roots = [self.layout.root / name for name in self.layout.hierarchies]
        return [*roots, self.layout.unified] if self.layout.unified else roots

    @contextlib.contextmanager
    def as_monitor(self, container: str) -> Iterator[None]:
        """What the calling thread starts in here is born in the groups of version 1 of the container's monitor.

        One hierarchy is enough to find everything a monitor starts: nobody leaves a group by forking. In the others it
        has a group where the server's own is not the root, so that it does not share the server's fate.

        A thread may move itself without the lock that the kernel takes to move another process (since Linux 5.18,
        commit 9a3284fad42f), for which it waits out a grace period: ten milliseconds.
        """
        groups = [(root, own) for root, own in self._monitor_roots() if not self._is_version_2(root)]
        try:
            for root, _ in groups:
                _join(Path(f"{root}{self.parent}/{MONITORS}/{container}"), "tasks", make=True)
            yield
        finally:
            # The thread must be out again: whoever asks who is in the group would be told this process.
            for root, own in groups:
                _join(Path(f"{root}{own}"), "tasks")

    def later_groups(self, container: str) -> list[Path]:
        """The monitor's groups of version 2, which knows none of threads: ``place`` moves it there."""
        roots = [root for root, _ in self._monitor_roots() if self._is_version_2(root)]
        return [Path(f"{root}{self.parent}/{MONITORS}/{container}") for root in roots]

    def place(self, groups: Sequence[Path], pid: int) -> None:
        """Move a process that has started nothing yet. Blocks for the kernel's lock."""
        for group in groups:
            _join(group, "cgroup.procs", pid=pid, make=True)

    def _monitor_roots(self) -> Iterator[tuple[Path, str]]:
        """Where a monitor has a group of its own, and the group that the server has there."""
        own = own_groups(Path("/proc/thread-self/cgroup").read_text())
        tracking = self._tracking()
        for root in self._roots():
            name = "" if self._is_version_2(root) else root.name.split(",")[0]
            # A new cpuset group takes no process before it is given processors, and limits nothing by itself.
            if root == tracking or (name != "cpuset" and own.get(name, "/") != "/"):
                yield root, own.get(name, "/")

    def _is_version_2(self, root: Path) -> bool:
        return self.layout.version == 2 or root == self.layout.unified

    def _tracking(self) -> Path:
        """The hierarchy in which a monitor always has its own group."""
        names = self.layout.hierarchies
        return self.layout.root / ("pids" if "pids" in names else names[-1])

    def makers(self, container: str) -> list[int]:
        """The container's monitor, and what it has started that has not become the container."""
        found = _read_members(Path(f"{self._tracking()}{self.parent}/{MONITORS}/{container}"))
        return [pid for pid in found if pid != os.getpid()]  # a thread of ours that is about to start one

    def members(self, container: str) -> list[int]:
        """The processes of a container, as the host numbers them."""
        for hierarchy in self.layout.hierarchies:
            folder = self._folder(hierarchy, container)
            if folder.is_dir():
                return _read_members(folder)
        return []

    def out_of_memory(self, container: str) -> bool:
        """Whether the kernel ever killed a process of the container for want of memory."""
        for hierarchy in self.layout.hierarchies:
            folder = self._folder(hierarchy, container)
            for name in ("memory.events", "memory.oom_control"):
                with contextlib.suppress(OSError, ValueError):
                    counts = dict(line.split(None, 1) for line in (folder / name).read_text().splitlines())
                    return int(counts.get("oom_kill", "0")) > 0
        return False

    def remove(self, container: str) -> None:
        """Remove the container's groups; its processes have ended. Repeats safely."""
        for root in self._roots():
            _remove_group(Path(f"{root}{self.parent}/{container}"))
            _remove_group(Path(f"{root}{self.parent}/{MONITORS}/{container}"))

    def remove_parent(self) -> None:
        """Remove ``parent`` where nothing is left in it."""
        for root in self._roots():
            with contextlib.suppress(OSError):
                _remove_group(Path(f"{root}{self.parent}/{MONITORS}"))
                Path(f"{root}{self.parent}").rmdir()


def _join(group: Path, file: str, *, pid: int = 0, make: bool = False) -> None:
    """Move a process, or what calls (0), into a group."""
    with contextlib.suppress(OSError):  # read-only or delegated hierarchies: the monitor works where it is
        if make:
            group.mkdir(parents=True, exist_ok=True)
        (group / file).write_text(str(pid))


def _read_members(folder: Path) -> list[int]:
    try:
        return [int(pid) for pid in (folder / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def _remove_group(folder: Path) -> None:
    """A group is removed from its leaves; its files go with it."""
    for path, _, _ in os.walk(folder, topdown=False):
        try:
            os.rmdir(path)  # noqa: PTH106
        except OSError as exc:
            if exc.errno != errno.ENOENT:
                raise
