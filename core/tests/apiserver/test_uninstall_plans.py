"""``.../plan/uninstall``: what would go is what goes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from nanocloud.apiserver.plans import Plans
from nanocloud.controllers.planner import Planner
from nanocloud.images import ImageSources
from nanocloud.macros import BuiltinMacros
from nanocloud.models.bundle import BUNDLE
from nanocloud.models.core import PERSISTENT_VOLUME_CLAIM, SECRET
from nanocloud.models.pod import POD
from nanocloud.planning.expander import expander
from nanocloud.testkit.api import GUEST, ApiClient, refusal
from nanocloud.testkit.planning import MARIADB, WORDPRESS
from nanocloud.testkit.simulation import Server, Simulation

KINDS = {"bundle": BUNDLE, "pod": POD, "volume": PERSISTENT_VOLUME_CLAIM, "secret": SECRET}


@pytest.fixture
def machine(tmp_path: Path) -> Simulation:
    return Simulation(tmp_path)


@pytest.fixture
async def server(machine: Simulation, mock_clock: MockClock) -> AsyncIterator[Server]:
    async with machine.run() as server:
        yield server


@pytest.fixture
def api(machine: Simulation, server: Server) -> ApiClient:
    images = ImageSources([machine.images])
    planner = Planner(store=server.store, profiles=server.profiles, images=images, expand=expander([BuiltinMacros()]))
    return ApiClient.over(server.store, routes=Plans(planner=planner, store=server.store, unfit=None).routes())


async def planned(api: ApiClient, name: str, **body: Any) -> list[dict[str, Any]]:
    answer = await api.call(BUNDLE, name, "plan/uninstall", body)
    return answer.json()["status"]["bundles"]  # type: ignore[no-any-return]


async def there(server: Server) -> set[tuple[str, str]]:
    return {(section, name) for section, kind in KINDS.items() for name in await server.names(kind)}


def named(bundles: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """What a plan says will be removed, but bindings, which end as records."""
    changes = [change for bundle in bundles for change in bundle["changes"]]
    return {(c["section"], c["name"]) for c in changes if c["change"] == "removed" and c["section"] != "binding"}


async def test_what_would_go_is_what_goes(server: Server, api: ApiClient) -> None:
    await server.install("wordpress")
    await server.ready("mariadb", "wordpress")
    before, revision = await there(server), server.store.revision
    wordpress, mariadb = await planned(api, "wordpress")
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


async def test_a_service_of_the_users_own_stays(server: Server, api: ApiClient) -> None:
    await server.install("mariadb")
    await server.ready("mariadb")
    await server.install("wordpress")
    await server.ready("wordpress")
    before = await there(server)
    (wordpress,) = await planned(api, "wordpress")
    assert "(stays: mariadb has no command to revoke it)" in wordpress["text"]
    await server.uninstall("wordpress")
    await server.gone("wordpress")
    assert before - await there(server) == named([wordpress])


async def test_access_that_can_be_revoked_is_revoked(machine: Simulation, server: Server, api: ApiClient) -> None:
    exports = {"options": ["host", "port"], "bindings": ["create_user", "require_tls", "revoke_user"]}
    machine.add_image("mariadb", MARIADB, exports=exports)
    await server.install("wordpress")
    await server.ready("wordpress")
    (wordpress,) = await planned(api, "wordpress", keepServices=True)
    assert "create_user wordpress wordpress ******** in mariadb (is revoked)" in wordpress["text"]


async def test_a_service_that_others_use_names_them(machine: Simulation, server: Server, api: ApiClient) -> None:
    machine.add_image("blog", WORDPRESS)
    await server.install("wordpress")
    await server.install("blog", port_1="81->80", database_name="blog", database_user="blog")
    await server.ready("wordpress", "blog")
    (mariadb,) = await planned(api, "mariadb")
    assert sorted(mariadb["usedBy"]) == ["blog", "wordpress"]
    assert "~ dependant blog: uses mariadb -> is without mariadb" in mariadb["text"].splitlines()
    # One of two users goes, the service stays.
    (blog,) = await planned(api, "blog")
    assert blog["usedBy"] == []


async def test_a_bundle_that_came_to_nothing_goes_too(server: Server, api: ApiClient) -> None:
    await server.install("wordpress", port_1="none")
    await server.reason("wordpress", "OptionsInvalid")
    (wordpress,) = await planned(api, "wordpress")
    assert wordpress["text"] == "- bundle wordpress: service wordpress"


async def test_no_secret_is_in_the_plan(server: Server, api: ApiClient) -> None:
    await server.install("wordpress", database_password="hunter2-hunter2")
    await server.ready("wordpress")
    assert "hunter2" not in str(await planned(api, "wordpress"))


async def test_what_is_not_there_cannot_go_and_what_is_not_known_cannot_be_asked(api: ApiClient) -> None:
    absent = await refusal(planned(api, "nope"))
    assert absent.code == 404
    assert 'bundles.nanocloud.io "nope" not found' in str(absent)
    misspelt = await refusal(planned(api, "nope", keepService=True))
    assert misspelt.code == 422
    assert "keepServices" in str(misspelt)
    assert (await refusal(planned(api.acting_as(GUEST), "nope"))).code == 403
