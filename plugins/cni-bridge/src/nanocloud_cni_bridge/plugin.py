"""Registers the bridge network with the node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nanocloud import hookimpl
from nanocloud_cni_bridge.config import BridgeConfig
from nanocloud_cni_bridge.network import BridgeNetwork

if TYPE_CHECKING:
    from nanocloud.config import NodeConfig

NANOCLOUD_CONTRACTS = {"network": "1.0"}


@hookimpl
def nanocloud_network_providers(config: NodeConfig) -> list[BridgeNetwork]:
    section = config.section("cni-bridge", BridgeConfig)
    return [BridgeNetwork(section, state_dir=config.state_dir, run_dir=config.run_dir)]
