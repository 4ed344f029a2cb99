"""Writing to a repository of a registry: blobs that it lacks, then manifests.

A blob goes in one PATCH; one that is cut goes on where the registry says it stands, or from the start where it has
forgotten. The registry digests what it got before it takes it (``PUT ...?digest=``).

Source: OCI distribution specification 1.1, "Pushing a blob in chunks", "Pushing manifests".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

from nanocloud.errors import ImageError, NotFoundError
from nanocloud_dockyard.retry import Backoff, TransientError
from nanocloud_dockyard.source import Document
from nanocloud_dockyard.transport import Ask, Transport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    import httpx2

    from nanocloud_dockyard.media import Descriptor
    from nanocloud_dockyard.reference import RegistryReference

_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,19})")
_PROGRESS_BYTES = 256 << 10  # a cut after that much is a new failure, not the old one again
_ACTIONS = "pull,push"
_FORGOTTEN = frozenset({400, 404, 416})
"""What registries answer about an upload whose state they do not share any more."""


@attrs.frozen
class _Upload:
    """An upload under way: where it goes on, and how much the registry has."""

    url: httpx2.URL
    at: int


class _ForgottenError(Exception):
    """The registry knows nothing of the upload (any more)."""


class RegistryTarget:
    """One repository that images are pushed to."""

    def __init__(self, transport: Transport, reference: RegistryReference, backoff: Backoff) -> None:
        self._transport, self._reference, self._backoff = transport, reference, backoff
        self._endpoint = transport.endpoint(reference.host)

    @property
    def name(self) -> str:
        return f"{self._reference.host}/{self._reference.repository}"

    async def has_blob(self, descriptor: Descriptor) -> bool:
        async def ask() -> bool:
            url = self._url(f"blobs/{descriptor.digest}")
            try:
                async with self._request(Ask(url=url, method="HEAD", actions=_ACTIONS), str(descriptor.digest)):
                    return True
            except NotFoundError:
                return False

        return await self._backoff.repeated(ask)

    async def put_blob(
        self,
        descriptor: Descriptor,
        read: Callable[[int], AbstractAsyncContextManager[AsyncIterator[bytes]]],
        progress: Callable[[int], None],
    ) -> None:
        """Upload a blob.

        Args:
            read: the blob's bytes from an offset on; called again after every cut.
            progress: told how many bytes the registry was sent.

        Raises:
            ImageError: the registry refuses it, or cannot be reached after several attempts.
        """
        failures, reached = 0, 0
        upload: _Upload | None = None
        while True:
            try:
                upload = (await self._resume(upload) if upload else None) or await self._begin()
                if upload.at - reached >= _PROGRESS_BYTES:
                    failures = 0
                reached = max(reached, upload.at)
                upload = await self._send(upload, descriptor, read, progress)
                await self._finish(upload, descriptor)
                return
            except _ForgottenError as exc:
                upload, failure = None, TransientError(f"{self.name}: the upload of {descriptor.digest} {exc}")
            except TransientError as exc:
                failure = exc
            failures += 1
            await self._backoff.pause(failures, failure)

    async def put_document(self, document: Document, media_type: str, target: str) -> None:
        """Put an index or manifest under a tag or its digest; what it names has to be there."""

        async def put() -> None:
            ask = _with_body(self._url(f"manifests/{target}"), document.data, {"Content-Type": media_type})
            async with self._request(ask, f"manifest {target}") as response:
                stated = response.headers.get("Docker-Content-Digest")
            if stated is not None and stated != document.digest:
                raise ImageError(f"{self.name}: manifest {target} became {stated}, not {document.digest} as sent")

        await self._backoff.repeated(put)

    async def _begin(self) -> _Upload:
        ask = Ask(
            url=self._url("blobs/uploads/"),
            method="POST",
            headers={"Content-Length": "0"},
            accepted=frozenset({202}),
            actions=_ACTIONS,
        )
        async with self._request(ask, "an upload") as response:
            return _Upload(self._location(response), 0)

    async def _resume(self, upload: _Upload) -> _Upload | None:
        """Ask where an upload stands that was cut; None where the registry has forgotten it."""
        ask = Ask(url=upload.url, accepted=frozenset({204, *_FORGOTTEN}), actions=_ACTIONS)
        async with self._request(ask, "an upload") as response:
            if response.status_code != 204:
                return None
            url = self._location(response) if "Location" in response.headers else upload.url
            return _Upload(url, _received(response, 0))

    async def _send(
        self,
        upload: _Upload,
        descriptor: Descriptor,
        read: Callable[[int], AbstractAsyncContextManager[AsyncIterator[bytes]]],
        progress: Callable[[int], None],
    ) -> _Upload:
        size = descriptor.size_bytes
        if upload.at > size:
            raise ImageError(f"{self.name} says it has {upload.at} of {size} bytes of {descriptor.digest}")
        if upload.at == size:
            return upload

        async def content() -> AsyncGenerator[bytes, None]:
            at = upload.at
            async with read(at) as chunks:
                async for chunk in chunks:
                    at += len(chunk)
                    if at > size:
                        raise ImageError(f"{descriptor.digest} has more than {size} bytes as stated")
                    yield chunk
                    progress(at)
            if at < size:
                raise ImageError(f"{descriptor.digest} ends after {at} of {size} bytes")

        ask = Ask(
            url=upload.url,
            method="PATCH",
            headers={
                "Content-Type": "application/octet-stream",
                "Content-Length": str(size - upload.at),
                "Content-Range": f"{upload.at}-{size - 1}",
            },
            content=content,
            accepted=frozenset({202, *_FORGOTTEN}),
            actions=_ACTIONS,
        )
        async with self._request(ask, f"blob {descriptor.digest}") as response:
            if response.status_code != 202:
                raise _ForgottenError("does not go on where the registry said it would")
            sent = _Upload(self._location(response), _received(response, size))
        if sent.at != size:
            raise TransientError(f"{self.name} took {sent.at} of {size} bytes of {descriptor.digest}")
        return sent

    async def _finish(self, upload: _Upload, descriptor: Descriptor) -> None:
        ask = _with_body(upload.url.copy_merge_params({"digest": str(descriptor.digest)}), b"", {})
        ask = attrs.evolve(ask, accepted=ask.accepted | {404})
        async with self._request(ask, f"blob {descriptor.digest}") as response:
            if response.status_code == 404:
                raise _ForgottenError("is not known any more")

    def _url(self, path: str) -> httpx2.URL:
        import httpx2

        return httpx2.URL(self._endpoint.url(self._reference.repository, path))

    def _location(self, response: httpx2.Response) -> httpx2.URL:
        location = response.headers.get("Location")
        if not location:
            raise ImageError(f"{self.name} takes an upload, but does not say where")
        return self._transport.check_address(self._endpoint, location)

    def _request(self, ask: Ask, subject: str) -> AbstractAsyncContextManager[httpx2.Response]:
        return self._transport.request(self._endpoint, self._reference.repository, ask, f"{self.name}: {subject}")


def _with_body(url: httpx2.URL, data: bytes, headers: dict[str, str]) -> Ask:
    async def content() -> AsyncGenerator[bytes, None]:
        yield data

    return Ask(
        url=url,
        method="PUT",
        headers=headers | {"Content-Length": str(len(data))},
        content=content,
        accepted=frozenset({201, 204}),
        actions=_ACTIONS,
    )


def _received(response: httpx2.Response, default: int) -> int:
    """How many bytes the registry has, by its word. An upload of nothing is ``0-0`` to some, so that is taken for 0."""
    found = _RANGE.fullmatch(response.headers.get("Range", ""))
    if not found:
        return default
    last = int(found[1])
    return last + 1 if last else 0
