from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nanocloud.keyspace import Keyspace
from nanocloud.models.builtin import builtin_registry
from nanocloud.objects import ObjectStore
from nanocloud.storage import SqliteStorage


@pytest.fixture
async def keyspace(tmp_path: Path) -> AsyncIterator[Keyspace]:
    async with SqliteStorage(tmp_path / "keyspace") as storage, Keyspace.open(storage) as keyspace:
        yield keyspace


def seal(data: bytes, context: str, /) -> bytes:
    return context.encode() + b"|" + bytes(byte ^ 0x5A for byte in data)


def unseal(data: bytes, context: str, /) -> bytes:
    head, _, body = data.partition(b"|")
    assert head == context.encode()
    return bytes(byte ^ 0x5A for byte in body)


@pytest.fixture
async def store(keyspace: Keyspace) -> ObjectStore:
    store = ObjectStore(keyspace, builtin_registry(), seal=seal, unseal=unseal)
    await store.ensure_namespaces()
    return store
