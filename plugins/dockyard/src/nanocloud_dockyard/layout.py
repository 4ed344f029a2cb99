"""Images in an OCI layout folder: ``oci-layout``, ``index.json`` and ``blobs/sha256/<hex>``. Nothing is copied.

Source: OCI image specification 1.1, image-layout.md.
"""

from __future__ import annotations

import os
import stat
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import trio

from nanocloud.errors import ImageError, NotFoundError
from nanocloud_dockyard.limits import MAX_MANIFEST_BYTES
from nanocloud_dockyard.media import Descriptor, parse_index
from nanocloud_dockyard.source import Document, Source, check_digest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nanocloud.providers.image import Digest


class LayoutSource(Source):
    """One tag of a layout folder; ``tag`` None means its only image."""

    def __init__(self, path: Path, tag: str | None) -> None:
        self._path, self._tag = path, tag

    @property
    def name(self) -> str:
        return f"oci:{self._path}" + (f":{self._tag}" if self._tag else "")

    async def document(self, digest: Digest | None) -> Document:
        return await trio.to_thread.run_sync(self._document, digest)

    async def small_blob(self, descriptor: Descriptor) -> bytes:
        what = f"{self.name}: blob {descriptor.digest}"
        data = await trio.to_thread.run_sync(self._read, self._blob(descriptor.digest), descriptor.size_bytes)
        return check_digest(data, descriptor.digest, what)

    @asynccontextmanager
    async def layer(self, descriptor: Descriptor) -> AsyncIterator[int | AsyncIterator[bytes]]:
        fd = self._open(self._blob(descriptor.digest))
        try:
            if (size := os.fstat(fd).st_size) != descriptor.size_bytes:
                raise ImageError(
                    f"{self.name}: layer {descriptor.digest} has {size} bytes, not {descriptor.size_bytes} as stated"
                )
            yield fd
        finally:
            os.close(fd)

    def descriptors(self) -> tuple[Descriptor, ...]:
        """All that ``index.json`` names. Blocks."""
        return self._index()

    def blob(self, digest: Digest) -> bytes | None:
        """A small blob as it is, unverified; None if it is missing or not small. Blocks."""
        try:
            return self._read(self._blob(digest), MAX_MANIFEST_BYTES)
        except (NotFoundError, ImageError):
            return None

    def _document(self, digest: Digest | None) -> Document:
        media_type = ""
        if digest is None:
            chosen = self._choose()
            digest, media_type = chosen.digest, chosen.media_type
        data = self._read(self._blob(digest), MAX_MANIFEST_BYTES)
        return Document(check_digest(data, digest, f"{self.name}: manifest"), media_type)

    def _choose(self) -> Descriptor:
        index = self._index()
        if self._tag is None and len({d.digest for d in index}) == 1:
            return index[0]
        wanted = self._tag or "latest"
        for descriptor in reversed(index):  # a tag that was moved stands last
            if _tag_of(descriptor) == wanted:
                return descriptor
        known = ", ".join(sorted({_tag_of(d) for d in index} - {""})) or "no tag"
        raise NotFoundError(f"oci:{self._path} has no image {wanted!r}; it has {known}")

    def _index(self) -> tuple[Descriptor, ...]:
        try:
            version = orjson.loads(self._read(self._path / "oci-layout", MAX_MANIFEST_BYTES)).get("imageLayoutVersion")
        except (orjson.JSONDecodeError, AttributeError):
            version = None
        if version != "1.0.0":
            raise ImageError(f"oci:{self._path} is no OCI layout folder of version 1.0.0: see its file oci-layout")
        return parse_index(self._read(self._path / "index.json", MAX_MANIFEST_BYTES), f"oci:{self._path}/index.json")

    def _blob(self, digest: Digest) -> Path:
        return self._path / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def _open(self, path: Path) -> int:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not hold us up
        except FileNotFoundError:
            raise NotFoundError(f"oci:{self._path} has no {path.relative_to(self._path)}") from None
        except OSError as exc:
            raise ImageError(f"oci:{self._path}: {path.name} cannot be read: {exc.strerror}") from exc
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise ImageError(f"oci:{self._path}: {path.name} is no regular file")
        return fd

    def _read(self, path: Path, most: int) -> bytes:
        with os.fdopen(self._open(path), "rb") as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise ImageError(f"oci:{self._path}: {path.name} is over {most} bytes")
        return data


def _tag_of(descriptor: Descriptor) -> str:
    """Some builders write the whole reference where the tag belongs."""
    name = descriptor.ref_name if isinstance(descriptor.ref_name, str) else ""
    tail = name.rpartition("/")[2]
    return tail.rpartition(":")[2] if "/" in name and ":" in tail else name
