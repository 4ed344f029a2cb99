"""The built-in binding provider passes the suite that every binding provider passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nanocloud.bindings import ExecBinding
from nanocloud.testkit.suites import BindingProviderSuite

if TYPE_CHECKING:
    from collections.abc import Callable


class TestExecBinding(BindingProviderSuite):
    @pytest.fixture
    def make_provider(self) -> Callable[[], ExecBinding]:
        return ExecBinding
