"""Registers the image provider ``dockyard``. Nothing is imported before it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nanocloud import hookimpl

if TYPE_CHECKING:
    from nanocloud.config import NodeConfig
    from nanocloud.providers.image import ImageProvider

NANOCLOUD_CONTRACT = "1"


@hookimpl
def nanocloud_image_providers(config: NodeConfig) -> list[ImageProvider]:
    from nanocloud_dockyard.provider import Dockyard
    from nanocloud_dockyard.settings import DockyardConfig

    return [Dockyard(config.section("dockyard", DockyardConfig), config.state_dir / "images")]
