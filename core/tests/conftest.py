from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nanocloud.keyspace import Keyspace
from nanocloud.objects import ObjectStore
from nanocloud.storage import SqliteStorage
from nanocloud.testkit.objects import open_store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ObjectStore]:
    async with open_store(SqliteStorage(tmp_path / "keyspace")) as store:
        yield store


@pytest.fixture
def keyspace(store: ObjectStore) -> Keyspace:
    return store.keyspace
