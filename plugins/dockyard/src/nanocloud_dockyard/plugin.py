"""Registers the dockyard with the node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nanocloud import hookimpl
from nanocloud_dockyard.provider import Dockyard
from nanocloud_dockyard.settings import DockyardConfig

if TYPE_CHECKING:
    from nanocloud.config import NodeConfig

NANOCLOUD_CONTRACT = "1"


@hookimpl
def nanocloud_image_providers(config: NodeConfig) -> list[Dockyard]:
    return [Dockyard(config.section("dockyard", DockyardConfig), config.state_dir / "images")]
