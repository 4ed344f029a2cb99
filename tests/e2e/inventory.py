"""What a node has on the machine: files, mounts, loop devices, links, nftables elements, cgroups, processes.

Two inventories of a node are equal when it left nothing behind in between. Images are kept on purpose, and the
keyspace holds the history of what was; so neither counts.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nodes import TestNode

_CGROUPS = Path("/sys/fs/cgroup")
_FOLDERS = ("s/containers", "s/runtime-runc", "s/volumes", "s/network", "s/logs", "r")
_SOCKETS = {".sock"}


def take_inventory(node: TestNode) -> dict[str, list[str]]:
    """By kind; sorted, so that two can be compared."""
    folder = str(node.folder)
    return {
        "files": sorted(_files(node.folder)),
        "mounts": mounts_below(folder),
        "loop devices": loops_below(folder),
        "links": _links(node),
        "nftables": _rules(node),
        "cgroups": cgroups_named(node.cgroup),
        "processes": [line for line in processes_of(node.cgroup, folder) if "/nanocloud server" not in line],
    }


def _files(folder: Path) -> Iterator[str]:
    for name in _FOLDERS:
        for path in (folder / name).rglob("*"):
            if path.suffix not in _SOCKETS:
                yield str(path.relative_to(folder))


def mounts_below(folder: str) -> list[str]:
    points = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted(point for point in points if point.startswith(folder))


def loops_below(folder: str) -> list[str]:
    done = subprocess.run(["losetup", "--json", "--list"], capture_output=True, text=True, check=True)
    devices = json.loads(done.stdout)["loopdevices"] if done.stdout.strip() else []
    return sorted(device["back-file"] for device in devices if (device["back-file"] or "").startswith(folder))


def cgroups_named(name: str) -> list[str]:
    """All groups in all hierarchies; on version 1 the parent is at the second level."""
    found = [path for pattern in (f"{name}*", f"*/{name}*") for path in _CGROUPS.glob(pattern) if path.is_dir()]
    return sorted(str(inner) for path in found for inner in (path, *path.glob("**/")) if inner.is_dir())


def processes_of(cgroup: str, folder: str) -> list[str]:
    """Commands of processes in the node's cgroups, or that name its folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            groups = (path / "cgroup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if command and (f"/{cgroup}" in groups or folder in command):
            found.append(command)
    return sorted(found)


def environments_of(folder: str) -> list[str]:
    """Processes that were started with the folder in their environment: servers, and what they started."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if folder.encode() in (path / "environ").read_bytes():
                found.append(f"{path.name}: {(path / 'cmdline').read_bytes().replace(bytes(1), b' ').decode()}")
        except OSError:  # it ended, or hides itself
            continue
    return found


def _links(node: TestNode) -> list[str]:
    done = node.run("ip", "-json", "link")
    return sorted(link["ifname"] for link in json.loads(done.stdout))


def _rules(node: TestNode) -> list[str]:
    """Every rule and every element of a set or map, without handles and counters."""
    found = []
    for entry in json.loads(node.run("nft", "--json", "list", "ruleset").stdout)["nftables"]:
        if "metainfo" in entry:
            continue
        found.append(json.dumps(_without(entry, {"handle", "packets", "bytes"}), sort_keys=True))
    return sorted(found)


def _without(value: object, keys: set[str]) -> object:
    if isinstance(value, dict):
        return {key: _without(inner, keys) for key, inner in value.items() if key not in keys}
    if isinstance(value, list):
        return [_without(inner, keys) for inner in value]
    return value
