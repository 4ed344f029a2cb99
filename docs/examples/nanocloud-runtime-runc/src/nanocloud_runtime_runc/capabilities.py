"""Capabilities: which the server holds and can give, and how a process is given them.

Source: capabilities(7).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from nanocloud.errors import InvalidError

NAMES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
]
"""In the order of their numbers."""


def held() -> frozenset[str]:
    """What this process could give to a container: its bounding set."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            bits = int(line.split()[1], 16)
            return frozenset(f"CAP_{name}" for number, name in enumerate(NAMES) if bits >> number & 1)
    return frozenset()


def checked(names: Iterable[str], what: str) -> frozenset[str]:
    """These capabilities, all of which the server can give.

    Raises:
        InvalidError: names those that it cannot give.
    """
    wanted = frozenset(names)
    if lacking := sorted(wanted - held()):
        raise InvalidError(f"{what}: the server does not hold {', '.join(lacking)}, so it cannot give it")
    return wanted


def sets(names: Iterable[str], uid: int) -> dict[str, list[str]]:
    """The five sets of a process. execve(2) drops all that are not ambient, unless the user is root."""
    wanted = sorted(names)
    kept = wanted if uid else []
    return {"bounding": wanted, "effective": wanted, "permitted": wanted, "inheritable": kept, "ambient": kept}
