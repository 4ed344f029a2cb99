"""What the contract promises."""

from collections.abc import Callable

import pytest
from nanocloud.testkit.suites import MacroProviderSuite

from nanocloud_macro_passphrase.macro import PassphraseMacro


class TestPassphraseMacro(MacroProviderSuite):
    examples = ("passphrase", "passphrase 4", "passphrase 32")
    mistakes = ("passphrase 3", "passphrase 33", "passphrase six", "passphrase +6", "passphrase 06", "passphrase 6 6")

    @pytest.fixture
    def make_provider(self) -> Callable[[], PassphraseMacro]:
        return PassphraseMacro
