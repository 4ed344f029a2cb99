"""``.../plan``: what would happen, without any of it happening."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from trio.testing import MockClock

from nanocloud.apiserver.plans import Plans
from nanocloud.controllers.planner import Planner
from nanocloud.errors import PluginError
from nanocloud.images import ImageSources
from nanocloud.macros import BuiltinMacros
from nanocloud.models.bundle import BUNDLE
from nanocloud.planning.expander import expander
from nanocloud.testkit.api import ApiClient, refusal
from nanocloud.testkit.objects import bundle
from nanocloud.testkit.planning import MARIADB_EXPORTS
from nanocloud.testkit.simulation import Server, Simulation

PATH = "/apis/nanocloud.io/v1/namespaces/default/bundles/wordpress/plan"


@pytest.fixture
def machine(tmp_path: Path) -> Simulation:
    return Simulation(tmp_path)


def planner_of(machine: Simulation, server: Server) -> Planner:
    images = ImageSources([machine.images])
    return Planner(store=server.store, profiles=server.profiles, images=images, expand=expander([BuiltinMacros()]))


def api_of(machine: Simulation, server: Server, unfit: PluginError | None = None) -> ApiClient:
    plans = Plans(planner=planner_of(machine, server), store=server.store, unfit=unfit)
    return ApiClient.over(server.store, routes=plans.routes())


@pytest.fixture
def api(machine: Simulation, server: Server) -> ApiClient:
    return api_of(machine, server)


async def planned(api: ApiClient, body: Any, **headers: str) -> list[dict[str, Any]]:
    answer = await api.request("POST", PATH, body, headers=headers)
    return answer.json()["status"]["bundles"]  # type: ignore[no-any-return]


def wordpress(**options: str) -> dict[str, Any]:
    return bundle("wordpress", options=options)


@pytest.fixture
async def server(machine: Simulation, mock_clock: MockClock) -> AsyncIterator[Server]:
    async with machine.run() as server:
        yield server


async def test_a_plan_shows_everything_and_changes_nothing(machine: Simulation, server: Server, api: ApiClient) -> None:
    revision = server.store.revision
    mariadb, site = await planned(api, wordpress(database_name="blog"))
    assert [(b["name"], b["service"], b["installed"]) for b in (mariadb, site)] == [
        ("mariadb", "mariadb", False),
        ("wordpress", "wordpress", False),
    ]
    assert "blog" in str(site)
    assert "create_user" in site["text"]
    assert server.store.revision == revision
    assert await server.names(BUNDLE) == []
    assert machine.images.calls.of("ensure") == []


async def test_no_secret_is_in_a_plan(api: ApiClient) -> None:
    answer = await api.request("POST", PATH, wordpress(database_password="hunter2-hunter2"))
    assert "hunter2" not in answer.text
    assert "********" in answer.text


async def test_a_plan_of_what_is_there_is_empty_and_of_a_change_the_change(server: Server, api: ApiClient) -> None:
    await server.install("wordpress")
    await server.ready("wordpress")
    (same,) = await planned(api, wordpress())
    (changed,) = await planned(api, wordpress(port_1="81->80"))
    assert (same["installed"], same["changes"]) == (True, [])
    assert changed["changes"] != []
    assert "81" in changed["text"]
    assert "8080" in (await server.status("wordpress"))["options"]["port_1"]


async def test_a_bundle_that_cannot_be_can_be_planned_with_what_mends_it(server: Server, api: ApiClient) -> None:
    await server.install("wordpress", port_1="none")
    await server.reason("wordpress", "OptionsInvalid")
    assert (await refusal(planned(api, wordpress(port_1="none")))).code == 422
    *_, mended = await planned(api, wordpress(port_1="81->80"))
    assert mended["installed"]


@pytest.mark.parametrize(
    ("body", "code", "told"),
    [
        (wordpress(nonsense="x"), 422, "nonsense"),
        ({"spec": {}}, 422, "spec.service"),
        ({"spec": {"service": "wordpres"}}, 404, "did you mean wordpress?"),
        ([], 400, "the body must be a Bundle"),
        ({"kind": "List", "items": []}, 400, "items must be an array of 1 to 256 Bundles"),
        ({"kind": "List", "items": [wordpress(), []]}, 400, "the body must be a Bundle"),
        ({"kind": "List", "items": [wordpress(), {}]}, 400, "every item but the first needs metadata.name"),
        ({"kind": "List", "items": [wordpress(), {"metadata": {"name": "a"}, "spec": {}}]}, 422, "spec.service"),
        ({"metadata": []}, 400, "the body must be a Bundle"),
    ],
)
async def test_what_cannot_be_planned_is_told(api: ApiClient, body: Any, code: int, told: str) -> None:
    error = await refusal(planned(api, body))
    assert error.code == code
    assert told in str(error)


async def test_a_node_without_a_runtime_says_what_is_missing(machine: Simulation, server: Server) -> None:
    unfit = PluginError("no runtime provider is installed", hint="install one")
    error = await refusal(planned(api_of(machine, server, unfit), wordpress()))
    assert error.code >= 500
    assert "no runtime provider is installed" in str(error)


async def test_a_merge_patch_is_planned_over_what_is_there(server: Server, api: ApiClient) -> None:
    await server.install("wordpress")
    await server.ready("wordpress")
    await server.change("wordpress", security={"extraCapabilities": ["CAP_NET_ADMIN"]})
    await server.ready("wordpress")
    patch = {"spec": {"options": {"port_1": "81->80"}}}
    (merged,) = await planned(api, patch, **{"Content-Type": "application/merge-patch+json"})
    (whole,) = await planned(api, wordpress(port_1="81->80"))
    assert "security" not in {change["section"] for change in merged["changes"]}
    assert "- security capabilities: NET_ADMIN" in whole["text"]


async def test_stopping_is_a_change_though_the_plan_is_the_same(server: Server, api: ApiClient) -> None:
    await server.install("wordpress")
    await server.ready("wordpress")
    body = bundle("wordpress", start=False)
    (stopped,) = await planned(api, body)
    assert stopped["text"] == "~ state service: running -> stopped"


async def test_a_volume_that_is_there_keeps_its_size(server: Server, api: ApiClient) -> None:
    await server.install("wordpress")
    await server.ready("wordpress")
    refused = await refusal(planned(api, wordpress(volume_size_1="2Gi")))
    (same,) = await planned(api, wordpress(volume_size_1="1024Mi"))
    (moved,) = await planned(api, wordpress(volume_1="/srv/www"))
    assert refused.code == 422
    (cause,) = refused.cause["details"]["causes"]
    assert cause["field"] == "spec.options.volume_size_1"
    assert "'2Gi' is asked for, but the volume is there with 1Gi: a volume keeps its size" in cause["message"]
    assert "volume" not in {change["section"] for change in same["changes"]}
    assert "(the same volume with its data, mounted elsewhere)" in moved["text"]


async def test_a_change_of_size_that_slips_in_is_told_and_breaks_nothing(server: Server) -> None:
    await server.install("wordpress")
    await server.ready("wordpress")
    before = await server.pod("wordpress")
    await server.change("wordpress", options={"volume_size_1": "2Gi"})
    status = await server.reason("wordpress", "OptionsInvalid")
    assert "volume_size_1: '2Gi' is asked for" in status["message"]
    after = await server.pod("wordpress")
    assert before is not None
    assert after is not None
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    await server.change("wordpress", options={"volume_size_1": "1Gi"})
    await server.ready("wordpress")


async def test_an_unknown_field_is_told_where_the_caller_asks_for_it(api: ApiClient) -> None:
    body = bundle("wordpress", optoins={})
    strict = await refusal(api.request("POST", PATH, body, query={"fieldValidation": "Strict"}))
    lenient = await api.request("POST", PATH, body)
    assert (strict.code, lenient.code) == (400, 200)
    assert 'unknown field "spec.optoins"' in str(strict)
    assert "spec.optoins" in lenient.headers["warning"]


async def test_bundles_that_come_together_are_planned_together(
    machine: Simulation, server: Server, api: ApiClient
) -> None:
    machine.add_image("mariadb", {"port": [], "volume_1": ["/data"]}, exports=MARIADB_EXPORTS)
    mariadb = bundle("mariadb", options={"port": "3307"})
    settings = {"database=&mariadb": ["*database_port"], "env_PORT": ["*database_port", "$database_port"]}
    machine.add_image("wordpress", settings)

    def together(*items: object) -> dict[str, Any]:
        return {"kind": "List", "items": list(items)}

    alone = await refusal(planned(api, together(wordpress())))
    assert alone.code == 422
    assert "service mariadb, which comes first: options are invalid: port: is required" in str(alone)
    (first, second) = await planned(api, together(wordpress(), mariadb))
    assert [first["name"], second["name"]] == ["mariadb", "wordpress"]
    assert second["plan"]["options"]["env_PORT"]["value"] == "3307"
    await server.install("mariadb", port="3306")
    await server.install("wordpress")
    await server.ready("mariadb", "wordpress")
    # What the other will be counts, not what it is.
    *_, changed = await planned(api, together(wordpress(), mariadb))
    assert "~ option env_PORT: 3306 (default) -> 3307 (default)" in changed["text"].splitlines()
