"""The configuration as one node can carry it out: whether IPv6 is on, and which MTU, are known once it opens."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from nanocloud.providers.network import IPAddress
    from nanocloud_cni_bridge.config import BridgeConfig


@attrs.frozen(kw_only=True)
class Settings:
    bridge: str
    table: str
    network: IPv4Network
    network6: IPv6Network | None
    """None: IPv6 is off."""
    mtu: int

    @classmethod
    def of(cls, config: BridgeConfig, *, ipv6: bool, mtu: int) -> Settings:
        return cls(
            bridge=config.bridge,
            table=config.table,
            network=config.network,
            network6=config.network6 if ipv6 else None,
            mtu=config.mtu or mtu,
        )

    @property
    def dual(self) -> bool:
        return self.network6 is not None

    @property
    def networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return (self.network,) if self.network6 is None else (self.network, self.network6)

    @property
    def gateways(self) -> tuple[IPAddress, ...]:
        """The bridge's own addresses; the name server answers there."""
        return tuple(network[1] for network in self.networks)
