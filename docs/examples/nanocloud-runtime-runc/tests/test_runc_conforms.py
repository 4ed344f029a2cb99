"""The contract, by its suite."""

from collections.abc import Callable
from pathlib import Path

import pytest

from nanocloud.testkit.suites import RuntimeProviderSuite
from nanocloud_runtime_runc.runtime import RuncRuntime


@pytest.mark.root
class TestRuncRuntime(RuntimeProviderSuite):
    # The suite has fixtures of these names, so a class has to give them: a conftest.py is further away.
    @pytest.fixture
    def make_provider(self, make_runtime: Callable[[], RuncRuntime]) -> Callable[[], RuncRuntime]:
        return make_runtime

    @pytest.fixture
    def layers(self, busybox: tuple[Path, ...]) -> tuple[Path, ...]:
        return busybox
