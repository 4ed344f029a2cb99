"""Registers the image provider ``dockyard`` and its commands. Nothing is imported before it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nanocloud import hookimpl
from nanocloud.extension import CommandGroup

if TYPE_CHECKING:
    import typer

    from nanocloud.config import NodeConfig
    from nanocloud.providers.image import ImageProvider

NANOCLOUD_CONTRACTS = {"image": "1.0", "extension": "1.0"}


@hookimpl
def nanocloud_image_providers(config: NodeConfig) -> list[ImageProvider]:
    from nanocloud_dockyard.provider import Dockyard
    from nanocloud_dockyard.settings import DockyardConfig

    return [Dockyard(config.section("dockyard", DockyardConfig), config.state_dir / "images")]


@hookimpl
def nanocloud_commands() -> list[CommandGroup]:
    def load() -> typer.Typer:
        from nanocloud_dockyard.commands import app

        return app

    return [CommandGroup(name="dockyard", help="The catalogue of services, and their images.", load=load)]
