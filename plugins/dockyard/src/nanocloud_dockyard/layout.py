"""Images in an OCI layout: ``oci-layout``, ``index.json`` and ``blobs/sha256/<hex>``. Nothing is copied.

``LayoutFiles`` is where the three stand: in a folder here, in a tar in ``archive``.

Source: OCI image specification 1.1, image-layout.md.
"""

from __future__ import annotations

import abc
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


class LayoutFiles(abc.ABC):
    """The files of a layout."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """For messages."""

    @abc.abstractmethod
    def open(self, name: str) -> tuple[int, int]:
        """A descriptor that stands where the file begins, and the file's size. Blocks.

        Raises:
            NotFoundError: there is no such file.
            ImageError: it cannot be read, or is no regular file.
        """


class FolderFiles(LayoutFiles):
    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        return f"oci:{self._path}"

    def open(self, name: str) -> tuple[int, int]:
        fd = open_regular(self._path / name, self.name, name)
        return fd, os.fstat(fd).st_size


class LayoutSource(Source):
    """One tag of a layout; ``tag`` None means its only image."""

    def __init__(self, place: Path | LayoutFiles, tag: str | None) -> None:
        self._files = FolderFiles(place) if isinstance(place, Path) else place
        self._tag = tag

    @property
    def name(self) -> str:
        return self._files.name + (f":{self._tag}" if self._tag else "")

    async def document(self, digest: Digest | None) -> Document:
        return await trio.to_thread.run_sync(self._document, digest)

    async def small_blob(self, descriptor: Descriptor) -> bytes:
        what = f"{self.name}: blob {descriptor.digest}"
        data = await trio.to_thread.run_sync(self._read, _blob(descriptor.digest), descriptor.size_bytes)
        return check_digest(data, descriptor.digest, what)

    @asynccontextmanager
    async def layer(self, descriptor: Descriptor) -> AsyncIterator[int | AsyncIterator[bytes]]:
        fd, size = await trio.to_thread.run_sync(self._files.open, _blob(descriptor.digest))
        try:
            if size != descriptor.size_bytes:
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
            return self._read(_blob(digest), MAX_MANIFEST_BYTES)
        except (NotFoundError, ImageError):
            return None

    def _document(self, digest: Digest | None) -> Document:
        media_type = ""
        if digest is None:
            chosen = self._choose()
            digest, media_type = chosen.digest, chosen.media_type
        data = self._read(_blob(digest), MAX_MANIFEST_BYTES)
        return Document(check_digest(data, digest, f"{self.name}: manifest"), media_type)

    def _choose(self) -> Descriptor:
        index = self._index()
        if self._tag is None and len({d.digest for d in index}) == 1:
            return index[0]
        wanted = self._tag or "latest"
        for descriptor in reversed(index):  # a tag that was moved stands last
            if _tag_of(descriptor) == wanted:
                return descriptor
        known = ", ".join(sorted(tag for d in index if (tag := _tag_of(d)) and tag.isprintable())[:50]) or "no tag"
        raise NotFoundError(f"{self._files.name} has no image {wanted!r}; it has {known}")

    def _index(self) -> tuple[Descriptor, ...]:
        try:
            version = orjson.loads(self._read("oci-layout", MAX_MANIFEST_BYTES)).get("imageLayoutVersion")
        except (orjson.JSONDecodeError, AttributeError):
            version = None
        if version != "1.0.0":
            raise ImageError(f"{self._files.name} is no OCI layout of version 1.0.0: see its file oci-layout")
        return parse_index(self._read("index.json", MAX_MANIFEST_BYTES), f"{self._files.name}: index.json")

    def _read(self, name: str, most: int) -> bytes:
        fd, size = self._files.open(name)
        with os.fdopen(fd, "rb") as file:
            if size > most:
                raise ImageError(f"{self._files.name}: {name} is over {most} bytes")
            return file.read(size)


def open_regular(path: Path, source: str, name: str) -> int:
    """Open a file for reading; ``source`` and ``name`` are for messages. Raises as ``LayoutFiles.open`` does."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not hold us up
    except FileNotFoundError:
        raise NotFoundError(f"{source} has no {name}" if name != str(path) else f"{source} does not exist") from None
    except OSError as exc:
        raise ImageError(f"{source}: {name} cannot be read: {exc.strerror}") from exc
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ImageError(f"{source}: {name} is no regular file")
    return fd


def _blob(digest: Digest) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _tag_of(descriptor: Descriptor) -> str:
    """Some builders write the whole reference where the tag belongs."""
    name = descriptor.ref_name if isinstance(descriptor.ref_name, str) else ""
    tail = name.rpartition("/")[2]
    return tail.rpartition(":")[2] if "/" in name and ":" in tail else name
