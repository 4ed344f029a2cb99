"""Where the image suite's images come from: an OCI layout folder, written byte by byte so that it can be damaged.

Source: OCI image specification 1.1, image-layout.md, manifest.md, config.md, layer.md.
"""

from __future__ import annotations

import abc
import gzip
import hashlib
import io
import json
import platform
import shutil
import tarfile
from typing import TYPE_CHECKING, Any

import attrs

from nanocloud.providers.image import Digest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIGURATION = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@attrs.frozen(kw_only=True)
class Published:
    """An image that a provider can be asked for."""

    reference: str
    digest: Digest
    configuration: Digest
    layers: tuple[Digest, ...]
    """Of the compressed layers, lowest first."""
    size_bytes: int


class ImageSource(abc.ABC):
    """Publishes images, and damages them."""

    @abc.abstractmethod
    def publish(self, tag: str, *layers: Mapping[str, bytes], config: Mapping[str, Any]) -> Published:
        """Each layer is files by their path, one folder deep at most; ``config`` as in an OCI image configuration."""

    @abc.abstractmethod
    def damage(self, blob: Digest) -> None:
        """From now on the blob has other bytes, as many as before, below the digest that it had."""

    @abc.abstractmethod
    def withdraw(self) -> None:
        """Nothing can be fetched any more."""


class LayoutSource(ImageSource):
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._manifests: dict[str, dict[str, Any]] = {}

    def publish(self, tag: str, *layers: Mapping[str, bytes], config: Mapping[str, Any]) -> Published:
        tars = [_tar(files) for files in layers]
        descriptors = [self._blob(gzip.compress(tar, 1, mtime=0), _LAYER) for tar in tars]
        document = {
            "os": "linux",
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "config": dict(config),
            "rootfs": {"type": "layers", "diff_ids": [_digest(tar) for tar in tars]},
        }
        configuration = self._blob(json.dumps(document).encode(), _CONFIGURATION)
        manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": configuration, "layers": descriptors}
        described = self._blob(json.dumps(manifest).encode(), _MANIFEST)
        self._manifests[tag] = described | {"annotations": {"org.opencontainers.image.ref.name": tag}}
        (self._folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        index = {"schemaVersion": 2, "manifests": list(self._manifests.values())}
        (self._folder / "index.json").write_text(json.dumps(index))
        return Published(
            reference=f"oci:{self._folder}:{tag}",
            digest=described["digest"],
            configuration=configuration["digest"],
            layers=tuple(descriptor["digest"] for descriptor in descriptors),
            size_bytes=sum(descriptor["size"] for descriptor in descriptors),
        )

    def damage(self, blob: Digest) -> None:
        file = self._file(blob)
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)

    def withdraw(self) -> None:
        shutil.rmtree(self._folder)

    def _blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        """Write a blob; its descriptor."""
        digest = _digest(data)
        self._file(digest).parent.mkdir(parents=True, exist_ok=True)
        self._file(digest).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def _file(self, digest: Digest) -> Path:
        return self._folder / "blobs" / "sha256" / digest.removeprefix("sha256:")


def _digest(data: bytes) -> Digest:
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def _tar(files: Mapping[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for folder in dict.fromkeys(path.rpartition("/")[0] for path in files if "/" in path):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()
