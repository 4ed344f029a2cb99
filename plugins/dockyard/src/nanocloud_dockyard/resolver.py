"""From a source to the manifest and configuration for this machine, every document verified."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from nanocloud.errors import ImageError
from nanocloud.providers.image import Digest
from nanocloud_dockyard.limits import MAX_INDEX_DEPTH
from nanocloud_dockyard.media import (
    INDEX_TYPES,
    Configuration,
    Descriptor,
    Manifest,
    Platform,
    media_type_of,
    parse_configuration,
    parse_index,
    parse_manifest,
    select,
)
from nanocloud_dockyard.source import Document, Source, digest_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from nanocloud_dockyard.store import Store


@attrs.frozen(kw_only=True)
class Found:
    """An image for this machine."""

    digest: Digest
    manifest: Manifest
    configuration: Configuration
    documents: tuple[bytes, ...] = attrs.field(repr=False)
    """Index if there was one, manifest, configuration."""


class CachedSource(Source):
    """Documents named by digest come from the store where it has them; the rest from ``source``."""

    def __init__(self, store: Store, source: Source) -> None:
        self._store, self._source = store, source

    @property
    def name(self) -> str:
        return self._source.name

    async def document(self, digest: Digest | None) -> Document:
        known = await trio.to_thread.run_sync(self._store.blob, digest) if digest else None
        return Document(known, "") if known else await self._source.document(digest)

    async def small_blob(self, descriptor: Descriptor) -> bytes:
        known = await trio.to_thread.run_sync(self._store.blob, descriptor.digest)
        return known or await self._source.small_blob(descriptor)

    def layer(self, descriptor: Descriptor) -> AbstractAsyncContextManager[int | AsyncIterator[bytes]]:
        return self._source.layer(descriptor)


async def find(source: Source, digest: Digest | None, here: Platform) -> Found:
    """Walk from a tag or digest through indexes to the image for ``here``.

    Raises:
        NotFoundError: the source does not have it.
        ImageError: unreachable, wrong digest, broken, or not for this machine.
    """
    documents: list[bytes] = []
    for _ in range(MAX_INDEX_DEPTH + 1):
        document = await source.document(digest)
        what = f"{source.name}: {document.digest}"
        documents.append(document.data)
        if media_type_of(document.data, document.media_type, what) not in INDEX_TYPES:
            return await _image(source, document, here, documents)
        digest = select(parse_index(document.data, what), here, what).digest
    raise ImageError(f"{source.name}: indexes are nested deeper than {MAX_INDEX_DEPTH}")


async def _image(source: Source, document: Document, here: Platform, documents: list[bytes]) -> Found:
    what = f"{source.name}: {document.digest}"
    manifest = parse_manifest(document.data, what)
    data = await source.small_blob(manifest.config)
    found = build(document.data, data, what)
    if not here.runs(found.configuration.platform):
        raise ImageError(f"{what} is an image for {found.configuration.platform}; this node is {here}")
    return attrs.evolve(found, documents=(*documents, data))


def build(manifest_data: bytes, configuration_data: bytes, what: str) -> Found:
    """Put a manifest and its configuration together; both are verified already."""
    manifest = parse_manifest(manifest_data, what)
    configuration = parse_configuration(configuration_data, f"{what}: configuration")
    if len(manifest.layers) != len(configuration.diff_ids):
        raise ImageError(f"{what} is broken: {len(manifest.layers)} layers, but {len(configuration.diff_ids)} diff_ids")
    return Found(
        digest=digest_of(manifest_data),
        manifest=manifest,
        configuration=configuration,
        documents=(manifest_data, configuration_data),
    )
