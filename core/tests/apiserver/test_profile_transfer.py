"""``exportProfile`` and ``importProfile`` as clients see them."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from trio.testing import MockClock

from nanocloud.apiserver.app import build_app
from nanocloud.apiserver.auth import MASTERS, User
from nanocloud.apiserver.bodies import MAX_BODY_BYTES
from nanocloud.apiserver.context import ApiContext
from nanocloud.controllers.transfer import ProfileTransfer
from nanocloud.errors import ForbiddenError
from nanocloud.models.bundle import BUNDLE
from nanocloud.models.kinds import ResourceKind
from nanocloud.models.meta import Object, name_of
from nanocloud.objects import EventRecorder
from nanocloud.secrets import Envelope
from nanocloud.testkit.simulation import NODE_KEY, Server, Simulation

BUNDLES = "/apis/nanocloud.io/v1/namespaces/default/bundles"
TAR = {"Content-Type": "application/x-tar"}


class Users:
    async def authenticate(self, scope: Any) -> User:
        name = dict(scope["headers"]).get(b"authorization", b"admin").decode()
        return User(name=name, groups=frozenset({MASTERS} if name == "admin" else ()))


class NoBlogs:
    name = "no-blogs"

    def admit(self, operation: str, kind: ResourceKind, obj: Object, old: Object | None, user: object) -> Object:
        if name_of(obj) == "blog":
            raise ForbiddenError("no blogs here")
        return obj


@pytest.fixture
async def server(tmp_path: Path, mock_clock: MockClock) -> AsyncIterator[Server]:
    async with Simulation(tmp_path).run() as server:
        await server.install("wordpress")
        await server.ready("wordpress")
        yield server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[httpx2.AsyncClient]:
    events = EventRecorder(server.store)
    transfer = ProfileTransfer(store=server.store, profiles=server.profiles, events=events, envelope=Envelope(NODE_KEY))
    context = ApiContext(store=server.store, authenticator=Users(), transfer=transfer, admission=(NoBlogs(),))
    transport = httpx2.ASGITransport(app=build_app(context))
    async with httpx2.AsyncClient(transport=transport, base_url="https://node") as client:
        yield client


async def export(client: httpx2.AsyncClient, query: str = "?includeSecrets=true") -> bytes:
    answer = await client.post(f"{BUNDLES}/wordpress/exportProfile{query}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-tar"
    assert answer.headers["cache-control"] == "no-store"
    return answer.content


async def test_an_export_is_imported_as_it_came(client: httpx2.AsyncClient, server: Server) -> None:
    archive = await export(client)
    answer = await client.post(f"{BUNDLES}/site/importProfile", content=archive, headers=TAR)
    assert answer.status_code == 201, answer.text
    said = answer.json()
    assert (said["kind"], said["metadata"]["name"]) == ("ProfileImport", "site")
    assert said["status"]["decidedAnew"] == []
    assert sorted(await server.names(BUNDLE)) == ["mariadb", "site", "wordpress"]


async def test_options_can_be_given_with_it(client: httpx2.AsyncClient, server: Server) -> None:
    archive = await export(client, "")
    spec = {"archive": base64.b64encode(archive).decode(), "options": {"port_1": "82->80"}}
    answer = await client.post(f"{BUNDLES}/site/importProfile", json={"spec": spec})
    assert answer.status_code == 201, answer.text
    assert answer.json()["status"]["decidedAnew"] == ["database_password", "env_DB_PASSWORD"]
    bundle = await server.bundle("site")
    assert bundle is not None
    assert bundle["spec"]["options"] == {"port_1": "82->80"}


async def test_a_dry_run_checks_and_stores_nothing(client: httpx2.AsyncClient, server: Server) -> None:
    archive = await export(client)
    revision = server.store.revision
    for name, code in (("site", 201), ("wordpress", 409)):
        path = f"{BUNDLES}/{name}/importProfile?dryRun=All"
        assert (await client.post(path, content=archive, headers=TAR)).status_code == code
    assert server.store.revision == revision


@pytest.mark.parametrize(
    ("name", "change", "headers", "code", "told"),
    [
        ("wordpress", lambda data: data, TAR, 409, "already exists"),
        ("site", lambda data: data.replace(b"mariadb", b"mariadc"), TAR, 422, "the export was changed"),
        ("site", lambda data: data[:700], TAR, 422, "ends within manifest.json"),
        ("site", lambda data: b"", TAR, 422, "no profile export"),
        ("site", lambda data: bytes(MAX_BODY_BYTES + 1), TAR, 413, "larger than"),
        ("site", lambda data: data, {"Content-Type": "application/zip"}, 415, "application/x-tar"),
        ("site", lambda data: b'{"spec": {"archive": "?"}}', {}, 422, "spec.archive is not base64"),
        ("site", lambda data: b'{"spec": {}}', {}, 422, "spec.archive: is required"),
        ("blog", lambda data: data, TAR, 403, "no blogs here"),
        ("Not A Name", lambda data: data, TAR, 422, "metadata.name"),
    ],
)
async def test_what_cannot_be_imported_is_told_and_makes_nothing(
    client: httpx2.AsyncClient, server: Server, name: str, change: Any, headers: dict[str, str], code: int, told: str
) -> None:
    archive = change(await export(client))
    answer = await client.post(f"{BUNDLES}/{name}/importProfile", content=archive, headers=headers)
    assert (answer.status_code, told in answer.text) == (code, True), answer.text
    assert await server.names(BUNDLE) == ["mariadb", "wordpress"]


@pytest.mark.parametrize("path", ["wordpress/exportProfile?includeSecrets=true", "site/importProfile"])
async def test_only_an_administrator_may(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.post(f"{BUNDLES}/{path}", headers={"Authorization": "guest"})
    assert answer.status_code == 403
    assert (await client.get(f"{BUNDLES}/{path}")).status_code == 405


async def test_where_profiles_are_not_served_it_says_so(server: Server) -> None:
    context = ApiContext(store=server.store, authenticator=Users())
    transport = httpx2.ASGITransport(app=build_app(context))
    async with httpx2.AsyncClient(transport=transport, base_url="https://node") as client:
        assert (await client.post(f"{BUNDLES}/wordpress/exportProfile")).status_code == 503
