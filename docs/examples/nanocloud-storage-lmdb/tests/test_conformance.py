"""What the contract promises."""

from collections.abc import Callable
from pathlib import Path

import pytest
from nanocloud.testkit.suites import StorageProviderSuite

from nanocloud_storage_lmdb.storage import LmdbStorage


class TestLmdbStorage(StorageProviderSuite):
    @pytest.fixture
    def make_provider(self, tmp_path: Path) -> Callable[[], LmdbStorage]:
        return lambda: LmdbStorage(tmp_path / "storage-lmdb")
