"""The image contract: references become verified image configurations and unpacked, shared layers.

Source: OCI image specification 1.1 (manifest, config, layer), OCI distribution specification 1.1.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, NewType, Protocol

import attrs

from nanocloud.providers.base import Provider

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from pathlib import Path

Digest = NewType("Digest", str)
"""``sha256:<64 hex>``."""


@attrs.frozen(kw_only=True)
class ImageConfig:
    """The part of an OCI image configuration that runs a container. Untrusted."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = attrs.field(factory=dict)
    working_directory: str = "/"
    user: str = ""
    labels: Mapping[str, str] = attrs.field(factory=dict)
    exposed_ports: tuple[str, ...] = ()
    """``80/tcp``"""
    volumes: tuple[str, ...] = ()
    stop_signal: str = "SIGTERM"


@attrs.frozen(kw_only=True)
class Image:
    """A manifest for this machine's platform whose configuration was read and verified."""

    reference: str
    """As it was asked for."""
    digest: Digest
    """Of the manifest."""
    config: ImageConfig
    size_bytes: int
    """Compressed layers together."""


@attrs.frozen(kw_only=True)
class UnpackedImage:
    image: Image
    layers: tuple[Path, ...]
    """Folders, lowest first, with overlayfs whiteouts; read-only for everyone."""


@attrs.frozen(kw_only=True)
class CatalogEntry:
    """A service that ``nanocloud install`` can name."""

    service: str
    reference: str
    description: str
    built: bool
    """Whether its image is here and needs no registry."""
    labels: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """What the image will say once it is built, where the provider knows that without it."""


class PullProgress(Protocol):
    def __call__(self, *, done_bytes: int, total_bytes: int, layer: Digest) -> None:
        """Called often and cheaply while layers arrive; must not block."""


class ImageProvider(Provider):
    """Finds, fetches, verifies and unpacks images."""

    @abc.abstractmethod
    async def catalog(self) -> Sequence[CatalogEntry]:
        """The services this provider knows by name."""

    @abc.abstractmethod
    async def resolve(self, reference: str) -> Image:
        """Read manifest and configuration of ``reference``; fetches no layer.

        Shape of ``reference``: a catalogue service (``mariadb``), a registry reference (``host[:port]/name[:tag]``,
        ``...@sha256:...``), an OCI layout folder (``oci:/path[:tag]``) or archive (``oci-archive:/path[:tag]``).

        Raises:
            NotFoundError: no such service or image; a service's name lists near matches, a recipe that is not built
                says how to build it.
            ImageError: it cannot be reached, has a wrong digest, or is broken.
        """

    @abc.abstractmethod
    async def ensure(self, image: Image, *, progress: PullProgress | None = None) -> UnpackedImage:
        """Fetch, verify and unpack what is missing of the image. Layers are unpacked once and shared.

        Concurrent calls for one layer share the work. A crash in the middle heals: a layer is used only when whole.

        Raises:
            ImageError: digest, size or diff_id is wrong, or a layer breaks a rule; names the layer and the entry.
        """

    @abc.abstractmethod
    async def local(self, digest: Digest) -> UnpackedImage:
        """The image with that manifest digest, without any network, if all of it is here.

        Raises:
            NotFoundError: it is not here whole.
        """

    @abc.abstractmethod
    async def collect(self, in_use: AbstractSet[Digest], *, idle_seconds: float = 0.0) -> Sequence[Digest]:
        """Remove images whose manifest digest is not in ``in_use``, and layers nobody needs; returns what went.

        Images that were resolved, ensured or looked up less than ``idle_seconds`` ago stay: a plan may hold one that
        is not stored yet. So does what the catalogue offers without a registry.
        """
