"""The image contract, checked by the suite that every image provider runs against itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nanocloud.testkit.suites import ImageProviderSuite
from nanocloud_dockyard.provider import Dockyard
from nanocloud_dockyard.settings import DockyardConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.root
class TestDockyard(ImageProviderSuite):
    @pytest.fixture
    def make_provider(self, tmp_path: Path) -> Callable[[], Dockyard]:
        return lambda: Dockyard(DockyardConfig(), tmp_path / "images")
