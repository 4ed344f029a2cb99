"""The OCI configuration (``config.json``) of a container, as plain data.

What always holds, whatever the caller asks for: new pid, ipc, uts, mount and cgroup namespaces, a network namespace
other than the host's, no-new-privileges, masked and read-only paths of ``/proc`` and ``/sys``, a tmpfs on ``/dev``,
no core dumps.

Source: OCI runtime specification 1.0.2, config.md and config-linux.md.
"""

from __future__ import annotations

import posixpath
import resource
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from nanocloud.providers.runtime import ContainerSpec
    from nanocloud_runtime_crun.users import User

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MAX_OPEN_FILES = 65_536

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
)
READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_STRICT = ["nosuid", "noexec", "nodev"]


def _system_mounts(rootfs: Path) -> list[dict[str, Any]]:
    return [
        # crun binds the root anew without flags. A device node of the image must stay a mere file, whether or not
        # the host can filter devices by cgroup.
        _mount("/.", "bind", ["remount", "bind", "nosuid", "nodev"], str(rootfs)),
        _mount("/proc", "proc", [*_STRICT]),
        _mount("/dev", "tmpfs", ["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"]),
        _mount("/dev/pts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        _mount("/dev/shm", "tmpfs", [*_STRICT, "mode=1777", "size=65536k"]),  # noqa: S108  # in the container
        _mount("/dev/mqueue", "mqueue", [*_STRICT]),
        _mount("/sys", "sysfs", [*_STRICT, "ro"]),
        _mount("/sys/fs/cgroup", "cgroup", [*_STRICT, "relatime", "ro"]),
        _mount("/run", "tmpfs", ["nosuid", "nodev", "mode=0755", "size=65536k"]),
    ]


def _mount(target: str, kind: str, options: list[str], source: str | None = None) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source or kind, "options": options}


def _bind(source: Path, target: str, *, read_only: bool, options: Iterable[str] = ()) -> dict[str, Any]:
    flags = ["bind", "rprivate", "nosuid", "nodev", "ro" if read_only else "rw", *options]
    return _mount(target, "bind", flags, str(source))


@attrs.frozen(kw_only=True)
class Prepared:
    """What has been looked up on the host for one container; paths as they are in its view."""

    rootfs: Path
    volumes: tuple[Path, ...]
    files: tuple[Path, ...]
    network_namespace: Path | None
    user: User
    seccomp: Mapping[str, Any] | None
    capabilities: tuple[str, ...]
    resources: Mapping[str, Any]
    cgroup_path: str
    hard_open_files: int
    oom_score: int


def build(spec: ContainerSpec, prepared: Prepared) -> dict[str, Any]:
    """The whole configuration."""
    network: dict[str, Any] = {"type": "network"}
    if prepared.network_namespace is not None:
        network["path"] = str(prepared.network_namespace)
    linux: dict[str, Any] = {
        "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup")] + [network],
        "cgroupsPath": prepared.cgroup_path,
        "resources": dict(prepared.resources),
        "maskedPaths": list(MASKED_PATHS),
        "readonlyPaths": list(READ_ONLY_PATHS),
        # A service without capabilities may still listen on port 80: the port is in its own network namespace.
        "sysctl": {"net.ipv4.ip_unprivileged_port_start": "0"},
    }
    if prepared.seccomp is not None:
        linux["seccomp"] = dict(prepared.seccomp)
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(prepared.rootfs), "readonly": spec.security.read_only_root},
        "hostname": spec.hostname or spec.id,
        "process": _process(spec, prepared),
        "mounts": mounts(spec, prepared),
        "linux": linux,
    }


def mounts(spec: ContainerSpec, prepared: Prepared) -> list[dict[str, Any]]:
    """The system's mounts, then the caller's with parents before children; at one target the caller's wins."""
    wanted = [_mount(target, "tmpfs", ["nosuid", "nodev", "mode=1777"]) for target in spec.tmpfs]
    for mount, source in zip(spec.mounts, prepared.volumes, strict=True):
        wanted.append(_bind(source, mount.target, read_only=mount.read_only))
    for file, source in zip(spec.files, prepared.files, strict=True):
        wanted.append(_bind(source, file.path, read_only=True, options=["noexec"]))
    for entry in wanted:
        entry["destination"] = posixpath.normpath(entry["destination"])
    wanted.sort(key=lambda mount: mount["destination"].count("/"))
    taken = {mount["destination"] for mount in wanted}
    return [mount for mount in _system_mounts(prepared.rootfs) if mount["destination"] not in taken] + wanted


def environment(given: Mapping[str, str], user: User) -> list[str]:
    """``PATH`` and ``HOME`` are always there, as every engine has it."""
    return [f"{name}={value}" for name, value in ({"PATH": DEFAULT_PATH, "HOME": user.home} | dict(given)).items()]


def capabilities(names: Iterable[str], uid: int) -> dict[str, list[str]]:
    """The sets of a process. A user other than root keeps at ``execve`` only what is ambient too."""
    wanted = sorted(names)
    passed_on = wanted if uid else []
    return {
        "bounding": wanted,
        "effective": wanted,
        "permitted": wanted,
        "inheritable": passed_on,
        "ambient": passed_on,
    }


def _process(spec: ContainerSpec, prepared: Prepared) -> dict[str, Any]:
    user = prepared.user
    open_files = min(_MAX_OPEN_FILES, prepared.hard_open_files)
    return {
        "terminal": spec.terminal,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)},
        "args": list(spec.argv),
        "env": environment(spec.environment, user),
        "cwd": spec.working_directory,
        "capabilities": capabilities(prepared.capabilities, user.uid),
        "rlimits": [
            {"type": "RLIMIT_NOFILE", "soft": open_files, "hard": open_files},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},  # a dump would put secrets on a disk
        ],
        "noNewPrivileges": True,
        "oomScoreAdj": prepared.oom_score,
    }


def hard_open_files() -> int:
    """The most open files this server may give away; raising it would take CAP_SYS_RESOURCE."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else hard
