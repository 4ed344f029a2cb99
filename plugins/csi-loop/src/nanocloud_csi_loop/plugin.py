"""Registers the volume provider ``csi-loop``."""

from nanocloud import hookimpl
from nanocloud.config import NodeConfig
from nanocloud_csi_loop.config import read
from nanocloud_csi_loop.provider import LoopVolumes

NANOCLOUD_CONTRACTS = {"volume": "1.0"}


@hookimpl
def nanocloud_volume_providers(config: NodeConfig) -> list[LoopVolumes]:
    root, section = read(config)
    return [LoopVolumes(root, overcommit=section.overcommit)]
