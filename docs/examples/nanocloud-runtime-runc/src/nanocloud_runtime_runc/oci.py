"""A container as an OCI configuration: what the contract promises of every container is decided here.

Source: OCI runtime specification 1.0.2, config.md and config-linux.md.
"""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import attrs

from nanocloud.providers.runtime import ContainerSpec, ExecSpec, Resources
from nanocloud_runtime_runc import capabilities
from nanocloud_runtime_runc.folder import Folder
from nanocloud_runtime_runc.programs import SEARCH_PATH
from nanocloud_runtime_runc.users import User

_MASKED = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/scsi",
    "/proc/sched_debug",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
]
_READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
_MOST_FILES = 1 << 20
_CPU_PERIOD, _LEAST_CPU_QUOTA = 100_000, 1_000
"""In microseconds."""


@attrs.frozen(kw_only=True)
class Surroundings:
    """What the configuration needs to know besides the spec."""

    folder: Folder
    user: User
    capabilities: AbstractSet[str]
    seccomp: Mapping[str, Any] | None
    cgroup: str
    limits_swap: bool


def configuration(spec: ContainerSpec, around: Surroundings) -> dict[str, Any]:
    """``config.json``."""
    privileged = spec.security.privileged
    linux: dict[str, Any] = {
        "namespaces": _namespaces(spec.network_namespace),
        "cgroupsPath": around.cgroup,
        "resources": {
            **_resources(spec.resources, limits_swap=around.limits_swap),
            "devices": [{"allow": privileged, "access": "rwm"}],  # runc itself lets the ones through that all have
        },
        "devices": list(_devices(Path("/dev"))) if privileged else [],
        "maskedPaths": _MASKED,
        "readonlyPaths": _READ_ONLY,
        # Nobody else's port is in its network namespace, and no capability is wanted for port 80.
        "sysctl": {"net.ipv4.ip_unprivileged_port_start": "0"},
    }
    if around.seccomp is not None:
        linux["seccomp"] = around.seccomp
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(around.folder.rootfs), "readonly": spec.security.read_only_root},
        "hostname": spec.hostname or spec.id,
        "process": {
            "terminal": spec.terminal,
            "user": _user(around.user),
            "args": list(spec.argv),
            "env": _environment(spec.environment, around.user),
            "cwd": spec.working_directory or "/",
            "capabilities": capabilities.sets(around.capabilities, around.user.uid),
            "noNewPrivileges": True,
            "rlimits": _limits(),
            "oomScoreAdj": max(0, int(Path("/proc/self/oom_score_adj").read_text())),
        },
        "mounts": _mounts(spec, around.folder),
        "linux": linux,
    }


def process(spec: ExecSpec, container: Mapping[str, Any], user: User | None) -> dict[str, Any]:
    """``process`` for one more process: the container's own, and what the spec says instead.

    ``user`` is the one that ``spec.user`` names.
    """
    found: dict[str, Any] = {**container, "terminal": spec.terminal, "args": list(spec.argv)}
    if user is not None:
        found["user"] = _user(user)
    if spec.environment is not None:
        found["env"] = [f"{name}={value}" for name, value in spec.environment.items()]
    if spec.working_directory is not None:
        found["cwd"] = spec.working_directory
    kept = found["capabilities"]["bounding"] if spec.capabilities is None else spec.capabilities
    found["capabilities"] = capabilities.sets(kept, found["user"]["uid"])
    return found


def _namespaces(network: Path | None) -> list[dict[str, str]]:
    made = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup")]
    return [*made, {"type": "network"} | ({"path": str(network)} if network else {})]


def _user(user: User) -> dict[str, Any]:
    # The server's umask is strict; a container's is what programs expect.
    return {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups), "umask": 0o022}


def _environment(given: Mapping[str, str], user: User) -> list[str]:
    return [f"{name}={value}" for name, value in ({"PATH": SEARCH_PATH, "HOME": user.home} | dict(given)).items()]


def _limits() -> list[dict[str, Any]]:
    """A core dump would put secrets on a disk. Of files as many as the server itself may have: it cannot give more."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    return [
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_NOFILE", "soft": files, "hard": files},
    ]


def _resources(limits: Resources, *, limits_swap: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if limits.memory_bytes is not None:
        found["memory"] = {"limit": limits.memory_bytes}
        if limits_swap:  # the sum of both: nothing of it, for what is secret in memory must not reach a disk
            found["memory"]["swap"] = limits.memory_bytes
    if limits.cpu_millicores is not None:
        quota = max(_LEAST_CPU_QUOTA, limits.cpu_millicores * _CPU_PERIOD // 1000)
        found["cpu"] = {"period": _CPU_PERIOD, "quota": quota}
    if limits.pids is not None:
        found["pids"] = {"limit": limits.pids}
    return found


def _mount(target: str, kind: str, *options: str, source: str = "") -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source or kind, "options": list(options)}


_SYSTEM = (
    _mount("/proc", "proc", "nosuid", "noexec", "nodev"),
    _mount("/dev", "tmpfs", "nosuid", "noexec", "strictatime", "mode=755", "size=64k"),
    _mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    _mount("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777", "size=64m"),  # noqa: S108 - the container's
    _mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
    _mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
    _mount("/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro"),
    _mount("/run", "tmpfs", "nosuid", "nodev", "mode=755", "size=64m"),
)


def _mounts(spec: ContainerSpec, folder: Folder) -> list[dict[str, Any]]:
    """The system's first, then the caller's; parents before children, whatever their order: sorted by depth.

    One that the caller wants at a place of the system's takes that place.
    """
    bind = ("bind", "rprivate", "nosuid", "nodev")
    found = [_mount(target, "tmpfs", "nosuid", "nodev", "mode=1777") for target in spec.tmpfs]
    for mount in spec.mounts:
        found.append(_mount(mount.target, "bind", *bind, "ro" if mount.read_only else "rw", source=str(mount.source)))
    for number, file in enumerate(spec.files):
        found.append(_mount(file.path, "bind", *bind, "ro", source=str(folder.files / str(number))))
    by_target = {_normal(each["destination"]): each for each in (*_SYSTEM, *found)}
    return sorted(by_target.values(), key=lambda each: _normal(each["destination"]).count("/"))


def _normal(target: str) -> str:
    return os.path.normpath("/" + target.lstrip("/"))


def _devices(folder: Path) -> Iterator[dict[str, Any]]:
    """The host's devices, for a privileged container; terminals are its own."""
    for path in sorted(folder.iterdir()):
        about = path.lstat()
        if stat.S_ISDIR(about.st_mode) and path.name not in ("pts", "shm", "mqueue"):
            yield from _devices(path)
        elif stat.S_ISCHR(about.st_mode) or stat.S_ISBLK(about.st_mode):
            yield {
                "path": str(path),
                "type": "c" if stat.S_ISCHR(about.st_mode) else "b",
                "major": os.major(about.st_rdev),
                "minor": os.minor(about.st_rdev),
                "fileMode": stat.S_IMODE(about.st_mode),
                "uid": about.st_uid,
                "gid": about.st_gid,
            }
