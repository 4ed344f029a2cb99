"""Images in a registry, or in a mirror of it that answers first. What may succeed later is tried again.

A blob that is cut goes on where it stopped (``Range``), from the same server or the next one. Servers are not trusted:
documents are digested here, layers by who unpacks them.

Source: OCI distribution specification 1.1, "Pulling manifests", "Pulling blobs"; RFC 9110, 14 (ranges).
"""

from __future__ import annotations

import re
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from nanocloud.errors import ImageError, NotFoundError
from nanocloud_dockyard.bodies import body, read_body
from nanocloud_dockyard.limits import MAX_MANIFEST_BYTES
from nanocloud_dockyard.media import ACCEPT, Descriptor
from nanocloud_dockyard.retry import Backoff, TransientError
from nanocloud_dockyard.source import Document, Source, check_digest
from nanocloud_dockyard.transport import Endpoint, Transport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    import httpx2

    from nanocloud.providers.image import Digest
    from nanocloud_dockyard.reference import RegistryReference

T = TypeVar("T")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-[0-9]{1,19}/([0-9]{1,19}|\*)")
_PROGRESS_BYTES = 256 << 10  # a cut after that much is a new failure, not the old one again


class RegistrySource(Source):
    """One repository, through ``endpoints`` in order; the last is the registry itself."""

    def __init__(
        self, transport: Transport, reference: RegistryReference, mirrors: tuple[str, ...], backoff: Backoff
    ) -> None:
        self._transport, self._reference, self._backoff = transport, reference, backoff
        self._endpoints = [transport.endpoint(address) for address in (*mirrors, reference.host)]

    @property
    def name(self) -> str:
        return f"{self._reference.host}/{self._reference.repository}"

    async def document(self, digest: Digest | None) -> Document:
        target = digest or self._reference.tag or "latest"

        async def read(endpoint: Endpoint) -> Document:
            what = f"{endpoint.host}/{self._reference.repository}: manifest {target}"
            headers = {"Accept": ACCEPT}
            async with self._get(endpoint, f"manifests/{target}", headers) as response:
                data = await read_body(response, MAX_MANIFEST_BYTES, what)
                stated = response.headers.get("Docker-Content-Digest")
                media_type = response.headers.get("Content-Type", "")
            document = Document(data, media_type)
            if digest:
                check_digest(data, digest, what)
            elif stated and stated.startswith("sha256:") and stated != document.digest:
                raise ImageError(f"{what} has digest {document.digest}, not {stated} as the registry says")
            return document

        return await self._from_any(read)

    async def small_blob(self, descriptor: Descriptor) -> bytes:
        async def read(endpoint: Endpoint) -> bytes:
            what = f"{endpoint.host}/{self._reference.repository}: blob {descriptor.digest}"
            async with self._get(endpoint, f"blobs/{descriptor.digest}", {}) as response:
                return check_digest(await read_body(response, descriptor.size_bytes, what), descriptor.digest, what)

        return await self._from_any(read)

    @asynccontextmanager
    async def layer(self, descriptor: Descriptor) -> AsyncIterator[int | AsyncIterator[bytes]]:
        async with aclosing(self._stream(descriptor)) as chunks:
            yield chunks

    def distrust(self) -> bool:
        if len(self._endpoints) == 1:
            return False
        self._endpoints = self._endpoints[-1:]
        return True

    def _get(
        self, endpoint: Endpoint, path: str, headers: dict[str, str]
    ) -> AbstractAsyncContextManager[httpx2.Response]:
        return self._transport.get(endpoint, self._reference.repository, path, headers)

    async def _from_any(self, read: Callable[[Endpoint], Awaitable[T]]) -> T:
        """The first endpoint that can answer; the registry's own error where none can."""
        *mirrors, registry = self._endpoints
        for endpoint in mirrors:
            try:
                return await read(endpoint)
            except (ImageError, NotFoundError, TransientError):
                continue  # not tried again: the next one is as good
        return await self._backoff.repeated(lambda: read(registry))

    async def _stream(self, descriptor: Descriptor) -> AsyncGenerator[bytes, None]:
        at = 0
        *mirrors, registry = self._endpoints
        for endpoint in (*mirrors, registry):
            try:
                async with aclosing(self._resumed(endpoint, descriptor, at)) as chunks:
                    async for chunk in chunks:
                        at += len(chunk)
                        yield chunk
                return
            except (ImageError, NotFoundError):
                if endpoint is registry:
                    raise

    async def _resumed(self, endpoint: Endpoint, descriptor: Descriptor, at: int) -> AsyncGenerator[bytes, None]:
        """The blob from byte ``at`` on; goes on after every cut that had some progress before it."""
        # A mirror gets one chance: the next one is as good.
        attempts = self._backoff.attempts if endpoint is self._endpoints[-1] else 1
        failures, since = 0, at
        while at < descriptor.size_bytes:
            try:
                async with aclosing(self._once(endpoint, descriptor, at)) as chunks:
                    async for chunk in chunks:
                        at += len(chunk)
                        yield chunk
                if at < descriptor.size_bytes:
                    raise TransientError(f"{endpoint.host}: layer {descriptor.digest} was cut after {at} bytes")
            except TransientError as exc:
                failures = 1 if at - since >= _PROGRESS_BYTES else failures + 1
                since = at
                await self._backoff.pause(failures, exc, attempts=attempts)

    async def _once(self, endpoint: Endpoint, descriptor: Descriptor, at: int) -> AsyncGenerator[bytes, None]:
        headers = {"Range": f"bytes={at}-"} if at else {}
        async with self._get(endpoint, f"blobs/{descriptor.digest}", headers) as response:
            skip = at - _start(response, descriptor, at)
            async with body(response) as chunks:
                async for chunk in chunks:
                    fresh = chunk[skip:]
                    skip = max(0, skip - len(chunk))
                    at += len(fresh)
                    if at > descriptor.size_bytes:
                        raise _wrong_size(descriptor, "more")
                    if fresh:
                        yield fresh


def _start(response: httpx2.Response, descriptor: Descriptor, wanted: int) -> int:
    """Where the body begins: servers may ignore a range."""
    if response.status_code == 200:
        length = response.headers.get("Content-Length")
        if length is not None and length != str(descriptor.size_bytes):
            raise _wrong_size(descriptor, length)
        return 0
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if not found or int(found[1]) != wanted:
        raise ImageError(f"layer {descriptor.digest}: the server sent another range than asked")
    if found[2] not in ("*", str(descriptor.size_bytes)):
        raise _wrong_size(descriptor, found[2])
    return wanted


def _wrong_size(descriptor: Descriptor, found: str) -> ImageError:
    return ImageError(f"layer {descriptor.digest} has {found} bytes, not {descriptor.size_bytes} as stated")
