"""What uninstalling left: objects in the API, and traces on the machine that bear the trial's names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nanocloud.client.api import Api, core_path

if TYPE_CHECKING:
    from nanocloud.config import NodeConfig

_LABEL = "nanocloud.io/bundle"
_CGROUPS = Path("/sys/fs/cgroup")
_DEEPEST = 6
_KEPT = {"images", "keyspace", "secure_assets"}
"""Of the state folder: what remembers on purpose, and holds no names of services in paths."""


def objects_left(server: Api, namespace: str, bundle: str) -> list[str]:
    """Pods, claims and Secrets of an uninstalled bundle, and its bindings but for what other services revoke later."""
    found = []
    for plural in ("pods", "persistentvolumeclaims", "secrets"):
        items = server.request("GET", core_path(namespace, plural), query={"labelSelector": f"{_LABEL}={bundle}"})[
            "items"
        ]
        found += [f"{plural}/{item['metadata']['name']}" for item in items]
    return found


def traces_left(config: NodeConfig, names: Iterable[str]) -> list[str]:
    """Files and folders of the node, mounts and control groups whose names hold one of ``names``."""
    wanted = tuple(names)
    return sorted({trace for trace in _traces(config) if any(name in trace for name in wanted)})


def _traces(config: NodeConfig) -> Iterator[str]:
    for top in (config.state_dir, config.run_dir):
        for path in _below(top, _DEEPEST):
            if path.relative_to(top).parts[0] not in _KEPT:
                yield str(path)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        yield f"mount {line.split(' ')[4]}"
    for path in _below(_CGROUPS, _DEEPEST):
        if path.is_dir():
            yield f"cgroup {path}"


def _below(folder: Path, depth: int) -> Iterator[Path]:
    """Everything below a folder, not following links; what goes away meanwhile is not there."""
    try:
        entries = list(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        yield entry
        if depth > 1 and entry.is_dir() and not entry.is_symlink() and not entry.is_mount():
            yield from _below(entry, depth - 1)
