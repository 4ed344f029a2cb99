"""The volume contract, checked by the suite that every volume provider runs against itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from nanocloud.testkit.suites.volume import VolumeProviderSuite
from nanocloud_csi_loop import LoopVolumes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
class TestLoopVolumes(VolumeProviderSuite):
    @pytest.fixture
    def make_provider(self, root: Path) -> Callable[[], LoopVolumes]:
        return lambda: LoopVolumes(root)
