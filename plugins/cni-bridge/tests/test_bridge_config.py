"""The table [cni-bridge]: what is refused, and that the message says what is allowed."""

from __future__ import annotations

from typing import Any

import pytest

from nanocloud.config import NodeConfig
from nanocloud.errors import ConfigError
from nanocloud_cni_bridge.config import BridgeConfig
from nanocloud_cni_bridge.plugin import nanocloud_network_providers


def read(**table: Any) -> BridgeConfig:
    return NodeConfig(sections={"cni-bridge": table}).section("cni-bridge", BridgeConfig)


def test_defaults() -> None:
    config = read()
    assert (config.bridge, str(config.network), str(config.gateway)) == ("nanocloud0", "10.118.0.0/16", "10.118.0.1")
    assert str(config.network6) == "fd6e:616e:6f63::/64"


def test_the_plugin_offers_one_provider_and_touches_nothing() -> None:
    (provider,) = nanocloud_network_providers(NodeConfig())
    assert provider.name == "cni-bridge"


def test_ipv6_can_be_turned_off() -> None:
    assert read(subnet6="").network6 is None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"bridge": "a/b"}, "bridge is 'a/b'"),
        ({"bridge": "x" * 16}, "1 to 15"),
        ({"subnet": "10.0.0.1/16"}, "has host bits set"),
        ({"subnet": "nonsense"}, "subnet is 'nonsense'"),
        ({"subnet": "10.0.0.0/30"}, "8 to 29"),
        ({"subnet": "8.8.0.0/16"}, "private range"),
        ({"subnet": "127.0.0.0/16"}, "private range"),
        ({"subnet6": "2001:db8::/64"}, "unique local"),
        ({"subnet6": "10.0.0.0/8"}, "subnet6 is '10.0.0.0/8'"),
        ({"subnet6": "fd00::/120"}, "fewer addresses"),
        ({"table": "drop table;"}, "table is 'drop table;'"),
        ({"mtu": 100}, "1280 to 65535"),
        ({"mtu": "1500"}, "integer"),
        ({"upstream": ["dns.example"]}, "'dns.example'"),
        ({"subnets": "10.0.0.0/8"}, "unknown field"),
    ],
)
def test_bad_values_are_named(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(**table)
    assert message in str(caught.value)
    assert "cni-bridge" in str(caught.value)
