"""``exportProfile`` and ``importProfile`` as clients see them."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from nanocloud.apiserver.bodies import MAX_BODY_BYTES
from nanocloud.controllers.transfer import ProfileTransfer
from nanocloud.errors import ForbiddenError
from nanocloud.models.bundle import BUNDLE
from nanocloud.models.kinds import ResourceKind
from nanocloud.models.meta import Object, name_of
from nanocloud.objects import EventRecorder
from nanocloud.secrets import Envelope
from nanocloud.testkit.api import GUEST, Answer, ApiClient, refusal
from nanocloud.testkit.objects import NODE_KEY
from nanocloud.testkit.simulation import Server, Simulation

TAR = {"Content-Type": "application/x-tar"}


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
def api(server: Server) -> ApiClient:
    events = EventRecorder(server.store)
    transfer = ProfileTransfer(store=server.store, profiles=server.profiles, events=events, envelope=Envelope(NODE_KEY))
    return ApiClient.over(server.store, transfer=transfer, admission=(NoBlogs(),))


async def export(api: ApiClient, *, secrets: bool = True) -> bytes:
    query = {"includeSecrets": "true"} if secrets else {}
    answer = await api.call(BUNDLE, "wordpress", "exportProfile", query=query)
    assert answer.headers["content-type"] == "application/x-tar"
    assert answer.headers["cache-control"] == "no-store"
    return answer.content


async def import_as(api: ApiClient, name: str, body: object, headers: dict[str, str] = TAR, **query: str) -> Answer:
    return await api.call(BUNDLE, name, "importProfile", body, headers=headers, query=query)


async def test_an_export_is_imported_as_it_came(api: ApiClient, server: Server) -> None:
    archive = await export(api)
    answer = await import_as(api, "site", archive)
    assert answer.code == 201
    said = answer.json()
    assert (said["kind"], said["metadata"]["name"]) == ("ProfileImport", "site")
    assert said["status"]["decidedAnew"] == []
    assert sorted(await server.names(BUNDLE)) == ["mariadb", "site", "wordpress"]


async def test_options_can_be_given_with_it(api: ApiClient, server: Server) -> None:
    archive = await export(api, secrets=False)
    spec = {"archive": base64.b64encode(archive).decode(), "options": {"port_1": "82->80"}}
    answer = await import_as(api, "site", {"spec": spec}, {})
    assert answer.code == 201
    assert answer.json()["status"]["decidedAnew"] == ["database_password", "env_DB_PASSWORD"]
    bundle = await server.bundle("site")
    assert bundle is not None
    assert bundle["spec"]["options"] == {"port_1": "82->80"}


async def test_a_dry_run_checks_and_stores_nothing(api: ApiClient, server: Server) -> None:
    archive = await export(api)
    revision = server.store.revision
    assert (await import_as(api, "site", archive, dryRun="All")).code == 201
    assert (await refusal(import_as(api, "wordpress", archive, dryRun="All"))).code == 409
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
    api: ApiClient, server: Server, name: str, change: Any, headers: dict[str, str], code: int, told: str
) -> None:
    archive = change(await export(api))
    error = await refusal(import_as(api, name, archive, headers))
    assert (error.code, told in str(error)) == (code, True), str(error)
    assert await server.names(BUNDLE) == ["mariadb", "wordpress"]


@pytest.mark.parametrize(("name", "subresource"), [("wordpress", "exportProfile"), ("site", "importProfile")])
async def test_only_an_administrator_may(api: ApiClient, name: str, subresource: str) -> None:
    assert (await refusal(api.acting_as(GUEST).call(BUNDLE, name, subresource))).code == 403
    assert (await refusal(api.call(BUNDLE, name, subresource, method="GET"))).code == 405


async def test_where_profiles_are_not_served_it_says_so(server: Server) -> None:
    assert (await refusal(ApiClient.over(server.store).call(BUNDLE, "wordpress", "exportProfile"))).code == 503
