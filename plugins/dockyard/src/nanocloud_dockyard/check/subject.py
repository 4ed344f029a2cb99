"""An image under check: its configuration, its files, and what the platform reads from both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import attrs

from nanocloud_dockyard.base import EPOCH
from nanocloud_dockyard.check.tree import ImageTree

if TYPE_CHECKING:
    from nanocloud.providers.image import Image
    from nanocloud_dockyard.provider import Dockyard

BINDINGS = "/usr/lib/nanocloud/bindings"


@attrs.frozen(kw_only=True)
class Subject:
    image: Image
    tree: ImageTree
    has_stop_signal: bool
    created: str = ""
    """RFC 3339; empty where nobody says."""

    @property
    def labels(self) -> Mapping[str, str]:
        return self.image.config.labels


async def fetch(dockyard: Dockyard, reference: str, built: Mapping[str, str]) -> Subject:
    """Get an image onto this machine, unpacked.

    Args:
        built: when the images that were built here were made, by digest: equal builds are equal images, so the image
            itself does not say.

    Raises:
        NotFoundError, ImageError: there is none, or it cannot be used.
    """
    image = await dockyard.resolve(reference)
    unpacked = await dockyard.ensure(image)
    document: dict[str, Any] = json.loads(await dockyard.configuration(image.digest))
    inner = document.get("config") or {}
    return Subject(
        image=image,
        tree=ImageTree(unpacked.layers),
        has_stop_signal=bool(inner.get("StopSignal")),
        created=built.get(image.digest) or _created(document),
    )


def _created(document: dict[str, Any]) -> str:
    """What the image says; the time that reproducible builds of recipes give says nothing."""
    text = str(document.get("created") or "")
    return "" if text.startswith(datetime.fromtimestamp(EPOCH, UTC).strftime("%Y-%m-%dT%H:%M:%S")) else text
