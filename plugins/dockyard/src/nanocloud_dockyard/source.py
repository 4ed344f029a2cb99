"""Where an image can be read from: one contract for registries and layout folders."""

from __future__ import annotations

import abc
import hashlib
from typing import TYPE_CHECKING

import attrs

from nanocloud.errors import ImageError
from nanocloud.providers.image import Digest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from nanocloud_dockyard.media import Descriptor


@attrs.frozen
class Document:
    """An index or manifest as its source sent it; ``media_type`` is the source's word for it, perhaps empty."""

    data: bytes
    media_type: str

    @property
    def digest(self) -> Digest:
        return digest_of(self.data)


def digest_of(data: bytes) -> Digest:
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def check_digest(data: bytes, expected: Digest, what: str) -> bytes:
    if (found := digest_of(data)) != expected:
        raise ImageError(f"{what} has digest {found}, not {expected} as asked")
    return data


class Source(abc.ABC):
    """One repository of images. Documents and small blobs come back verified, layers do not: who reads digests them."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """For messages."""

    @abc.abstractmethod
    async def document(self, digest: Digest | None) -> Document:
        """The index or manifest with ``digest``; without, the one that the reference's tag names now.

        Raises:
            NotFoundError: the source does not have it.
            ImageError: it cannot be reached, is too large, or its digest is wrong.
        """

    @abc.abstractmethod
    async def small_blob(self, descriptor: Descriptor) -> bytes:
        """A configuration. Raises as ``document`` does."""

    @abc.abstractmethod
    def layer(self, descriptor: Descriptor) -> AbstractAsyncContextManager[int | AsyncIterator[bytes]]:
        """The compressed layer: a file's descriptor that stands where it begins, or its bytes as they arrive.

        Raises as ``document`` does, also from the iterator; bytes beyond ``descriptor.size_bytes`` never come.
        """

    def distrust(self) -> bool:
        """Bytes from here were wrong. Leave out what need not be asked; whether that changes where they come from."""
        return False
