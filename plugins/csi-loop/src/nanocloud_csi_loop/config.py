"""The table ``[csi-loop]`` of the node's configuration."""

from __future__ import annotations

from pathlib import Path

import attrs

from nanocloud.config import NodeConfig
from nanocloud.errors import ConfigError


@attrs.frozen(kw_only=True)
class CsiLoopConfig:
    root: Path | None = None
    """Folder of all volumes; ``NANOCLOUD_CSI_ROOT`` wins over it. None: ``volumes`` below the state folder."""
    overcommit: bool = False
    """Whether volumes may together promise more than the disk holds. A full disk then breaks them while they run."""


def read(config: NodeConfig) -> tuple[Path, CsiLoopConfig]:
    """The folder of the volumes, and the table it may come from.

    Raises:
        ConfigError: a field that cannot be used; names it.
    """
    section = config.section("csi-loop", CsiLoopConfig)
    root = section.root if section.root is not None else config.state_dir / "volumes"
    if not root.is_absolute() or ".." in root.parts:
        raise ConfigError(
            f"{config.source}: csi-loop.root is {str(root)!r}; it must be an absolute path without '..'"
            " (NANOCLOUD_CSI_ROOT sets it too)"
        )
    return root, section
