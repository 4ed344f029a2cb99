"""The runtime contract, checked by the suite that every runtime provider runs against itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nanocloud.testkit.suites import RuntimeProviderSuite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nanocloud_runtime_crun.runtime import CrunRuntime


@pytest.mark.root
class TestCrunRuntime(RuntimeProviderSuite):
    @pytest.fixture
    def layers(self, image: Path) -> tuple[Path, ...]:
        return (image,)

    @pytest.fixture
    def make_provider(self, build_runtime: Callable[[], CrunRuntime]) -> Callable[[], CrunRuntime]:
        return build_runtime
