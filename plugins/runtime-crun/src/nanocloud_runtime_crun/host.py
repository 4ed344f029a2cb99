"""What the provider knows of this host while it is open: programs, folders, cgroups, the base view."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from nanocloud.errors import ProviderError
from nanocloud_runtime_crun import _syscalls as sys
from nanocloud_runtime_crun.record import Folder
from nanocloud_runtime_crun.view import mount_points

if TYPE_CHECKING:
    from nanocloud_runtime_crun.cgroups import Cgroups
    from nanocloud_runtime_crun.view import BaseView

_CAP_SYS_RESOURCE = 24
_CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
    "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP "
    "MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
CAPABILITIES = tuple(f"CAP_{name}" for name in _CAPABILITIES.split())
"""By number, capabilities(7)."""

_TMPFS_OPTIONS = "mode=0700,size=256m,nr_inodes=256k"


@attrs.frozen(kw_only=True)
class Host:
    crun: Path
    conmon: Path
    runtime_dir: Path
    """``<run_dir>/runtime``, on a tmpfs."""
    store_dir: Path
    """``<state_dir>/containers``: the writable layers."""
    cgroups: Cgroups
    view: BaseView
    capabilities: frozenset[str]
    """What this server holds, and so all it can give."""

    @property
    def crun_root(self) -> Path:
        """Where crun keeps its own state."""
        return self.runtime_dir / "crun"

    @property
    def containers_dir(self) -> Path:
        return self.runtime_dir / "containers"

    def folder(self, container: str) -> Folder:
        return Folder(self.containers_dir / container)

    def folders(self) -> list[Folder]:
        """Every container's folder, finished or not."""
        return [Folder(path) for path in sorted(self.containers_dir.iterdir())]

    def store(self, container: str) -> Path:
        return self.store_dir / container

    def crun_command(self, *arguments: str) -> list[str]:
        return [str(self.crun), f"--root={self.crun_root}", "--cgroup-manager=cgroupfs", *arguments]


def find_program(configured: str, package: str) -> Path:
    """The absolute path of a host program.

    Raises:
        ProviderError: it is not there; names the Debian package.
    """
    found = shutil.which(configured)
    if found is None:
        raise ProviderError(
            f"runtime-crun needs the program {configured}, which is not on this host",
            hint=f"install it: apt-get install {package}",
        )
    return Path(found).absolute()


def held_capabilities() -> frozenset[str]:
    """The bounding set of this process: what it can give to a container."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            mask = int(line.split()[1], 16)
            return frozenset(name for number, name in enumerate(CAPABILITIES) if mask & (1 << number))
    return frozenset()


def fs_type_of(path: Path, mountinfo: str) -> str:
    """The file system that ``path`` lies on (proc(5), mountinfo: the type is the first word after `` - ``)."""
    best, kind = "", ""
    for line in mountinfo.splitlines():
        (point,) = mount_points(line)
        if (path == Path(point) or Path(point) in path.parents) and len(point) >= len(best):
            best, kind = point, line.partition(" - ")[2].split(" ", 1)[0]
    return kind


def prepare_tmpfs(path: Path) -> None:
    """Make ``path`` a folder on a tmpfs: what is written there must not reach a disk. Repeats safely.

    A folder on a tmpfs that is there already is used as it is: then it is also the same folder for a server that was
    started in a mount namespace of its own.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    if fs_type_of(path.resolve(), Path("/proc/self/mountinfo").read_text(errors="surrogateescape")) == "tmpfs":
        return
    flags = sys.MS_NOSUID | sys.MS_NODEV | sys.MS_NOEXEC
    try:
        sys.mount("nanocloud-runtime", os.fspath(path), "tmpfs", flags, f"{_TMPFS_OPTIONS},noswap")
    except OSError:  # ``noswap`` is younger than Linux 6.4
        sys.mount("nanocloud-runtime", os.fspath(path), "tmpfs", flags, _TMPFS_OPTIONS)


def can_filter_devices(version: int) -> bool:
    """Version 2 filters by a BPF program, for which crun raises RLIMIT_MEMLOCK; version 1 by plain files."""
    return version == 1 or "CAP_SYS_RESOURCE" in held_capabilities()
