"""The volume contract, checked by the suite that every volume provider runs against itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nanocloud.testkit.suites import VolumeProviderSuite
from nanocloud_csi_loop import LoopVolumes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.root
class TestLoopVolumes(VolumeProviderSuite):
    @pytest.fixture
    def make_provider(self, root: Path) -> Callable[[], LoopVolumes]:
        return lambda: LoopVolumes(root)
