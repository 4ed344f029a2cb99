from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nanocloud.keyspace import Keyspace
from nanocloud.models.builtin import builtin_registry
from nanocloud.objects import ObjectStore
from nanocloud.storage import SqliteStorage
from nanocloud.testkit.api import ApiClient


@pytest.fixture
async def keyspace(tmp_path: Path) -> AsyncIterator[Keyspace]:
    async with SqliteStorage(tmp_path / "keyspace") as storage, Keyspace.open(storage) as keyspace:
        yield keyspace


@pytest.fixture
async def store(keyspace: Keyspace) -> ObjectStore:
    store = ObjectStore(keyspace, builtin_registry(), seal=lambda data, _: data, unseal=lambda data, _: data)
    await store.ensure_namespaces()
    return store


@pytest.fixture
def api(store: ObjectStore) -> ApiClient:
    return ApiClient.over(store)
