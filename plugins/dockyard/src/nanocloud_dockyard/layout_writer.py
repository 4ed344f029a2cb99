"""Adds a built image to the OCI layout folder from which the node's image store reads, whole or not at all.

Folder: ``state_dir/images/layout/``, an OCI image layout 1.0. A service's image is the descriptor in ``index.json``
whose ``org.opencontainers.image.ref.name`` is the service. ``io.nanocloud.recipe`` beside it says what it was built
from, ``org.opencontainers.image.created`` when: both outside the image, so that equal builds have equal digests.
Writers hold a lock on ``state_dir/images/layout.lock``; readers need none, for the index is replaced by a rename and
blobs are only ever added. Blobs that nothing names any more are left to the image store's collector.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs

from nanocloud.errors import CorruptError
from nanocloud.files import private_folder, sync_folder, write_durably

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REF_NAME = "org.opencontainers.image.ref.name"
CREATED = "org.opencontainers.image.created"
RECIPE = "io.nanocloud.recipe"
_INDEX_LIMIT = 8 * 1024 * 1024
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


@attrs.frozen(kw_only=True)
class Published:
    """A service's image in the layout."""

    service: str
    digest: str
    """Of the manifest."""
    recipe: str
    created: str
    size_bytes: int
    """Compressed layers together."""


def published(layout: Path) -> dict[str, Published]:
    """The images in the layout by service; those whose blobs are not all here are left out."""
    found = {}
    for descriptor in _index(layout)["manifests"]:
        annotations = descriptor.get("annotations", {})
        manifest = _manifest(layout, descriptor)
        if REF_NAME in annotations and manifest is not None:
            found[annotations[REF_NAME]] = Published(
                service=annotations[REF_NAME],
                digest=descriptor["digest"],
                recipe=annotations.get(RECIPE, ""),
                created=annotations.get(CREATED, ""),
                size_bytes=sum(layer["size"] for layer in manifest["layers"]),
            )
    return found


def publish(layout: Path, staged: Path, service: str, *, recipe: str, created: str) -> Published:
    """Move the one image of the layout ``staged`` into ``layout`` under the name ``service``.

    Both must lie on one filesystem. Repeats safely after a crash at any point: until the index is replaced, the old
    image stands.
    """
    (descriptor,) = _index(staged)["manifests"]
    if _manifest(staged, descriptor) is None:
        raise CorruptError(f"{staged} does not hold every blob of the image that was built for {service}")
    blobs = private_folder(layout / "blobs" / "sha256")
    with _locked(layout):
        for blob in (staged / "blobs" / "sha256").iterdir():
            if not (blobs / blob.name).exists():
                _sync_file(blob)
                blob.rename(blobs / blob.name)
        sync_folder(blobs)
        write_durably(layout / "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        index = _index(layout)
        index["manifests"] = [
            other for other in index["manifests"] if other.get("annotations", {}).get(REF_NAME) != service
        ]
        annotations = {CREATED: created, RECIPE: recipe, REF_NAME: service}
        index["manifests"].append({**descriptor, "annotations": annotations})
        write_durably(layout / "index.json", json.dumps(index, indent=1, sort_keys=True).encode())
    return published(layout)[service]


def _index(layout: Path) -> dict[str, Any]:
    try:
        with (layout / "index.json").open("rb") as file:
            index = json.loads(file.read(_INDEX_LIMIT))
    except FileNotFoundError:
        return {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}
    except ValueError as exc:
        raise CorruptError(
            f"{layout / 'index.json'} is not JSON: {exc}", hint="remove it and build the services again"
        ) from exc
    if not isinstance(index, dict) or not isinstance(index.get("manifests"), list):
        raise CorruptError(f"{layout / 'index.json'} is no image index", hint="remove it and build the services again")
    return index


def _manifest(layout: Path, descriptor: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest behind a descriptor; None unless it and all it names are in the layout with the right size."""

    def blob(part: dict[str, Any]) -> Path | None:
        match = _DIGEST.fullmatch(part["digest"])
        path = layout / "blobs" / "sha256" / match[1] if match else None
        return path if path and path.is_file() and path.stat().st_size == part["size"] else None

    path = blob(descriptor)
    if path is None or descriptor["size"] > _INDEX_LIMIT:
        return None
    manifest: dict[str, Any] = json.loads(path.read_bytes())
    if "config" not in manifest:  # an index of several platforms, which no build makes
        return None
    return manifest if all(blob(part) for part in (manifest["config"], *manifest["layers"])) else None


@contextmanager
def _locked(layout: Path) -> Iterator[None]:
    descriptor = os.open(layout.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
