"""From an image's layers to the folders that overlayfs stacks, lowest first.

Layers are unpacked alone and shared, so three things are put right here, for each sequence of layers:

- Folders without an entry of their own (``implied``; some builders leave parents out) got default metadata that would
  hide what a lower layer says about them. One more layer on top, the *parents layer*, repeats the lower layer's word.
- A layer that hides everything below it (an opaque root) ends the stack, for overlayfs has no mark for that.
- A layer that comes twice is stacked once, at its upper place, for overlayfs refuses a folder that comes twice. What
  it would show from the lower place it shows from the upper one.
"""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

import attrs

from nanocloud_dockyard.folders import OPAQUE_XATTR, is_whiteout
from nanocloud_dockyard.source import digest_of
from nanocloud_dockyard.store import LayerRecord, Store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nanocloud.providers.image import Digest


@attrs.frozen
class _Layer:
    path: Path
    implied: frozenset[str]


def parents_layer(diff_ids: Sequence[Digest]) -> Digest:
    """The name of the parents layer over these layers; it is no diff_id of any tar."""
    return digest_of(b"nanocloud parents layer\n" + json.dumps(diff_ids).encode())


def assemble(store: Store, diff_ids: Sequence[Digest], *, make: bool) -> tuple[Path, ...] | None:
    """The folders to stack; None if a layer is missing. Blocks.

    Args:
        make: make the parents layer where one is needed; without, it has to be there.
    """
    records = {diff_id: store.layer(diff_id) for diff_id in diff_ids}
    stack: list[tuple[Digest, LayerRecord]] = []
    for diff_id in dict.fromkeys(reversed(diff_ids)):
        record = records[diff_id]
        if record is None:
            return None
        stack.append((diff_id, record))
    visible = _visible(stack)
    paths = tuple(store.layer_path(diff_id) for diff_id, _ in reversed(visible))
    if not any(record.implied for _, record in visible[:-1]):
        return paths
    parents = parents_layer(diff_ids)
    if store.layer(parents) is None:
        if not make:
            return None
        layers = [_Layer(store.layer_path(diff_id), frozenset(record.implied)) for diff_id, record in visible]
        with store.new_layer() as new:
            count = _fill(new.path / "diff", layers)
            store.finish_layer(new, parents, LayerRecord(entries=count, whiteouts=0, size_bytes=0))
    return (*paths, store.layer_path(parents))


def _visible(stack: list[tuple[Digest, LayerRecord]]) -> list[tuple[Digest, LayerRecord]]:
    """From the top (first) down to the first layer with an opaque root."""
    for depth, (_, record) in enumerate(stack, start=1):
        if record.opaque_root:
            return stack[:depth]
    return stack


def _fill(root: Path, layers: Sequence[_Layer]) -> int:
    """Repeat below ``root`` the folders whose topmost layer only implies them; ``layers`` from the top down."""
    candidates = sorted({path for layer in layers[:-1] for path in layer.implied})
    wanted: dict[str, Path] = {}
    for path in candidates:
        first, explicit = _origins(layers, path)
        if first is not None and explicit is not None and first != explicit:
            for ancestor in _ancestors(path):
                top, said = _origins(layers, ancestor)
                if found := said or top:
                    wanted[ancestor] = found
            wanted[path] = explicit
    for path in sorted(wanted):  # parents sort before what is in them
        (root / path).mkdir()
    for path in sorted(wanted, reverse=True):
        _copy_metadata(wanted[path], root / path)
    return len(wanted)


def _origins(layers: Sequence[_Layer], path: str) -> tuple[Path | None, Path | None]:
    """Where ``path`` is first seen from the top, and where it is first seen with an entry of its own."""
    first: Path | None = None
    for layer in layers:
        exists, ends = _look(layer.path, path)
        if exists:
            first = first or layer.path / path
            if path not in layer.implied:
                return first, layer.path / path
        if ends:
            break
    return first, None


def _look(root: Path, path: str) -> tuple[bool, bool]:
    """Whether the layer has the folder, and whether it hides what lower layers have there."""
    at, opaque = root, False
    for part in path.split("/"):
        at = at / part
        try:
            found = at.lstat()
        except FileNotFoundError:
            return False, opaque
        if is_whiteout(found) or not stat.S_ISDIR(found.st_mode):
            return False, True
        opaque = opaque or OPAQUE_XATTR in os.listxattr(at, follow_symlinks=False)
    return True, opaque


def _ancestors(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:length]) for length in range(1, len(parts))]


def _copy_metadata(source: Path, target: Path) -> None:
    found = source.lstat()
    os.chown(target, found.st_uid, found.st_gid)
    for name in os.listxattr(source, follow_symlinks=False):
        if not name.startswith("trusted."):
            os.setxattr(target, name, os.getxattr(source, name))
    target.chmod(stat.S_IMODE(found.st_mode))
    os.utime(target, ns=(found.st_mtime_ns, found.st_mtime_ns))
