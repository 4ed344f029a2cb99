"""The network contract, by the suite of all network providers. ``test_bridge_network.py`` runs it in namespaces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nanocloud.testkit.suites import NetworkProviderSuite
from nanocloud_cni_bridge.config import BridgeConfig
from nanocloud_cni_bridge.network import BridgeNetwork


class TestBridgeNetwork(NetworkProviderSuite):
    @pytest.fixture
    def make_provider(self, tmp_path: Path) -> Callable[[], BridgeNetwork]:
        return lambda: BridgeNetwork(BridgeConfig(), state_dir=tmp_path / "state", run_dir=tmp_path / "run")
