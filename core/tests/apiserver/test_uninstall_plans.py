"""``.../plan/uninstall``: what would go is what goes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from trio.testing import MockClock

from nanocloud.apiserver.app import build_app
from nanocloud.apiserver.auth import MASTERS, User
from nanocloud.apiserver.context import ApiContext
from nanocloud.apiserver.plans import Plans
from nanocloud.controllers.planner import Planner
from nanocloud.images import ImageSources
from nanocloud.macros import BuiltinMacros
from nanocloud.models.bundle import BUNDLE
from nanocloud.models.core import PERSISTENT_VOLUME_CLAIM, SECRET
from nanocloud.models.pod import POD
from nanocloud.planning.expander import expander
from nanocloud.testkit.planning import MARIADB, WORDPRESS
from nanocloud.testkit.simulation import Server, Simulation

BUNDLES = "/apis/nanocloud.io/v1/namespaces/default/bundles"
KINDS = {"bundle": BUNDLE, "pod": POD, "volume": PERSISTENT_VOLUME_CLAIM, "secret": SECRET}


class Caller:
    def __init__(self, *groups: str) -> None:
        self.groups = groups

    async def authenticate(self, scope: object) -> User:
        return User(name="someone", groups=frozenset(self.groups))


@pytest.fixture
def machine(tmp_path: Path) -> Simulation:
    return Simulation(tmp_path)


@pytest.fixture
async def server(machine: Simulation, mock_clock: MockClock) -> AsyncIterator[Server]:
    async with machine.run() as server:
        yield server


def client_of(machine: Simulation, server: Server, *groups: str) -> httpx2.AsyncClient:
    images = ImageSources([machine.images])
    planner = Planner(store=server.store, profiles=server.profiles, images=images, expand=expander([BuiltinMacros()]))
    routes = tuple(Plans(planner=planner, store=server.store, unfit=None).routes())
    app = build_app(ApiContext(store=server.store, authenticator=Caller(*groups), routes=routes))
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="https://node")


async def planned(machine: Simulation, server: Server, name: str, **body: Any) -> list[dict[str, Any]]:
    async with client_of(machine, server, MASTERS) as client:
        answer = await client.post(f"{BUNDLES}/{name}/plan/uninstall", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["status"]["bundles"]  # type: ignore[no-any-return]


async def there(server: Server) -> set[tuple[str, str]]:
    return {(section, name) for section, kind in KINDS.items() for name in await server.names(kind)}


def named(bundles: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """What a plan says will be removed, but bindings, which end as records."""
    changes = [change for bundle in bundles for change in bundle["changes"]]
    return {(c["section"], c["name"]) for c in changes if c["change"] == "removed" and c["section"] != "binding"}


async def test_what_would_go_is_what_goes(machine: Simulation, server: Server) -> None:
    await server.install("wordpress")
    await server.ready("mariadb", "wordpress")
    before, revision = await there(server), server.store.revision
    wordpress, mariadb = await planned(machine, server, "wordpress")
    assert server.store.revision == revision
    assert (wordpress["name"], wordpress["reason"]) == ("wordpress", "")
    assert (mariadb["name"], mariadb["reason"]) == ("mariadb", "installed for wordpress, and nothing else uses it")
    lines = wordpress["text"].splitlines()
    assert "- pod wordpress-0: stops" in lines
    assert "- volume volume-1-wordpress-0: 1Gi at /var/www/html (its data is lost)" in lines
    assert "- volume volume-1-mariadb-0: 10Gi at /var/lib/mysql (its data is lost)" in mariadb["text"].splitlines()
    assert any(
        line.startswith("- binding database-create-user-")
        and line.endswith(": create_user wordpress wordpress ******** in mariadb (goes with mariadb)")
        for line in lines
    )
    await server.uninstall("wordpress")
    await server.gone("wordpress", "mariadb")
    assert before - await there(server) == named([wordpress, mariadb])


async def test_a_service_of_the_users_own_stays(machine: Simulation, server: Server) -> None:
    await server.install("mariadb")
    await server.ready("mariadb")
    await server.install("wordpress")
    await server.ready("wordpress")
    before = await there(server)
    (wordpress,) = await planned(machine, server, "wordpress")
    assert "(stays: mariadb has no command to revoke it)" in wordpress["text"]
    await server.uninstall("wordpress")
    await server.gone("wordpress")
    assert before - await there(server) == named([wordpress])


async def test_access_that_can_be_revoked_is_revoked(machine: Simulation, server: Server) -> None:
    exports = {"options": ["host", "port"], "bindings": ["create_user", "require_tls", "revoke_user"]}
    machine.add_image("mariadb", MARIADB, exports=exports)
    await server.install("wordpress")
    await server.ready("wordpress")
    (wordpress,) = await planned(machine, server, "wordpress", keepServices=True)
    assert "create_user wordpress wordpress ******** in mariadb (is revoked)" in wordpress["text"]


async def test_a_service_that_others_use_names_them(machine: Simulation, server: Server) -> None:
    machine.add_image("blog", WORDPRESS)
    await server.install("wordpress")
    await server.install("blog", port_1="81->80", database_name="blog", database_user="blog")
    await server.ready("wordpress", "blog")
    (mariadb,) = await planned(machine, server, "mariadb")
    assert sorted(mariadb["usedBy"]) == ["blog", "wordpress"]
    assert "~ dependant blog: uses mariadb -> is without mariadb" in mariadb["text"].splitlines()
    # One of two users goes, the service stays.
    (blog,) = await planned(machine, server, "blog")
    assert blog["usedBy"] == []


async def test_a_bundle_that_came_to_nothing_goes_too(machine: Simulation, server: Server) -> None:
    await server.install("wordpress", port_1="none")
    await server.reason("wordpress", "OptionsInvalid")
    (wordpress,) = await planned(machine, server, "wordpress")
    assert wordpress["text"] == "- bundle wordpress: service wordpress"


async def test_no_secret_is_in_the_plan(machine: Simulation, server: Server) -> None:
    await server.install("wordpress", database_password="hunter2-hunter2")
    await server.ready("wordpress")
    assert "hunter2" not in str(await planned(machine, server, "wordpress"))


async def test_what_is_not_there_cannot_go_and_what_is_not_known_cannot_be_asked(
    machine: Simulation, server: Server
) -> None:
    async with client_of(machine, server, MASTERS) as client:
        answer = await client.post(f"{BUNDLES}/nope/plan/uninstall")
        assert answer.status_code == 404
        assert 'bundles.nanocloud.io "nope" not found' in answer.json()["message"]
        answer = await client.post(f"{BUNDLES}/nope/plan/uninstall", json={"keepService": True})
        assert answer.status_code == 422
        assert "keepServices" in answer.json()["message"]
    async with client_of(machine, server) as client:
        assert (await client.post(f"{BUNDLES}/nope/plan/uninstall")).status_code == 403
