"""The SQLite storage passes the suite that every storage passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nanocloud.storage import SqliteStorage
from nanocloud.testkit.suites.storage import StorageProviderSuite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class TestSqliteStorage(StorageProviderSuite):
    @pytest.fixture
    def make_provider(self, tmp_path: Path) -> Callable[[], SqliteStorage]:
        return lambda: SqliteStorage(tmp_path / "keyspace")
