from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.types import ASGIApp

from nanocloud.apiserver.app import build_app
from nanocloud.apiserver.auth import MASTERS, User
from nanocloud.apiserver.context import ApiContext
from nanocloud.errors import UnauthorizedError
from nanocloud.keyspace import Keyspace
from nanocloud.models.builtin import builtin_registry
from nanocloud.objects import ObjectStore
from nanocloud.storage import SqliteStorage


class HeaderUsers:
    """``Authorization: Bearer <name>``; the name ``admin`` is a master."""

    async def authenticate(self, scope: Mapping[str, Any]) -> User | None:
        header = dict(scope["headers"]).get(b"authorization", b"").decode()
        if not header:
            return None
        name = header.removeprefix("Bearer ")
        if name == "forged":
            raise UnauthorizedError("Unauthorized")
        return User(name=name, groups=frozenset({MASTERS} if name == "admin" else ()))


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
def app(store: ObjectStore) -> ASGIApp:
    return build_app(ApiContext(store=store, authenticator=HeaderUsers()))


@pytest.fixture
async def client(app: ASGIApp) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=True)
    headers = {"Authorization": "Bearer admin"}
    async with httpx2.AsyncClient(transport=transport, base_url="https://node", headers=headers) as client:
        yield client
