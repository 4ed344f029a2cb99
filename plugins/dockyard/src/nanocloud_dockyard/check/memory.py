"""How much memory a container of this machine uses, as the kernel counts it: what it cannot give back by itself."""

from __future__ import annotations

from pathlib import Path

_MOUNT = Path("/sys/fs/cgroup")
_DEEPEST = 4


def memory_of(container: str, mount: Path = _MOUNT) -> int | None:
    """Bytes, without the page cache that is not in use; None where the kernel does not count.

    Source: Linux Documentation/admin-guide/cgroup-v2.rst, "Memory Interface Files"; cgroup-v1/memory.rst.
    """
    for usage, cache in (("memory.current", "inactive_file"), ("memory.usage_in_bytes", "total_inactive_file")):
        for depth in range(1, _DEEPEST + 1):
            for file in mount.glob("/".join(["*"] * (depth - 1) + [container, usage])):
                used = int(file.read_text())
                rows = dict(line.split() for line in (file.parent / "memory.stat").read_text().splitlines())
                return max(0, used - int(rows.get(cache, 0)))
    return None
