"""From any source to a registry: blobs first, side by side, then the documents that name them, the tag last.

An index is pushed with every image that it names: what is pushed is what was asked for, for all platforms.
"""

from __future__ import annotations

import os
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Protocol

import trio

from nanocloud.concurrency import gather
from nanocloud.errors import ImageError
from nanocloud_dockyard.limits import MAX_INDEX_DEPTH, MAX_INDEX_ENTRIES
from nanocloud_dockyard.media import INDEX_TYPES, media_type_of, parse_index, parse_parts

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from nanocloud.providers.image import Digest
    from nanocloud_dockyard.media import Descriptor
    from nanocloud_dockyard.source import Document, Source
    from nanocloud_dockyard.upload import RegistryTarget

_READ_BYTES = 1 << 20


class PushProgress(Protocol):
    def __call__(self, *, blob: Digest, done_bytes: int, total_bytes: int, skipped: bool) -> None:
        """Called often; ``skipped`` when the registry has the blob already. Must not block."""


class Push:
    """One push of one image or index."""

    def __init__(
        self, source: Source, target: RegistryTarget, *, progress: PushProgress, parallel_blobs: int = 3
    ) -> None:
        self._source, self._target, self._progress = source, target, progress
        self._limiter = trio.CapacityLimiter(parallel_blobs)
        self._done: set[Digest] = set()
        self._documents = 0

    async def run(self, digest: Digest | None, tag: str) -> Digest:
        """Push what the source's tag names now, or ``digest``, under ``tag``; returns its digest.

        Raises:
            NotFoundError: the source does not have it, or not all of it.
            ImageError: it is broken, or the registry refuses it.
        """
        document = await self._source.document(digest)
        await self._push(document, tag, depth=0)
        return document.digest

    async def _push(self, document: Document, target: str, *, depth: int) -> None:
        what = f"{self._source.name}: {document.digest}"
        self._documents += 1
        if self._documents > MAX_INDEX_ENTRIES or depth > MAX_INDEX_DEPTH:
            raise ImageError(f"{what}: indexes that name more than {MAX_INDEX_ENTRIES} images or nest too deep")
        media_type = media_type_of(document.data, document.media_type, what)
        if media_type in INDEX_TYPES:
            for child in parse_index(document.data, what):
                if child.digest not in self._done:
                    await self._push(await self._source.document(child.digest), child.digest, depth=depth + 1)
        else:
            parts = {part.digest: part for part in parse_parts(document.data, what)}
            missing = [part for digest, part in parts.items() if digest not in self._done]
            await gather(*(partial(self._blob, part) for part in missing))
        await self._target.put_document(document, media_type, target)
        self._done.add(document.digest)

    async def _blob(self, part: Descriptor) -> None:
        async with self._limiter:
            report = partial(self._progress, blob=part.digest, total_bytes=part.size_bytes)
            if await self._target.has_blob(part):
                report(done_bytes=part.size_bytes, skipped=True)
            else:
                told = partial(self._report, part)
                await self._target.put_blob(part, partial(_bytes, self._source, part), told)
                report(done_bytes=part.size_bytes, skipped=False)
            self._done.add(part.digest)

    def _report(self, part: Descriptor, done_bytes: int) -> None:
        if done_bytes < part.size_bytes:  # the last word is the registry's
            self._progress(blob=part.digest, done_bytes=done_bytes, total_bytes=part.size_bytes, skipped=False)


@asynccontextmanager
async def _bytes(source: Source, part: Descriptor, at: int) -> AsyncIterator[AsyncIterator[bytes]]:
    """The blob from byte ``at`` on."""
    async with source.layer(part) as content:
        chunks = _of_file(content, part.size_bytes, at) if isinstance(content, int) else _from(content, at)
        async with aclosing(chunks):
            yield chunks


async def _of_file(fd: int, size: int, at: int) -> AsyncGenerator[bytes, None]:
    await trio.to_thread.run_sync(os.lseek, fd, at, os.SEEK_CUR)
    while at < size and (chunk := await trio.to_thread.run_sync(os.read, fd, min(_READ_BYTES, size - at))):
        at += len(chunk)
        yield chunk


async def _from(content: AsyncIterator[bytes], at: int) -> AsyncGenerator[bytes, None]:
    async for chunk in content:
        if at < len(chunk):
            yield chunk[at:]
        at = max(0, at - len(chunk))
