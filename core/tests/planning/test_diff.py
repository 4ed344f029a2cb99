from __future__ import annotations

import json

import attrs
import pytest

from nanocloud.planning import WorkloadPlan, describe, diff
from nanocloud.testkit.planning import WORDPRESS, plan_label, resolve_label, target


@pytest.fixture
async def workload() -> WorkloadPlan:
    return await planned({})


async def planned(given: dict[str, str]) -> WorkloadPlan:
    targets = [await target()]
    resolution = await resolve_label(WORDPRESS, given, targets=targets)
    return plan_label(WORDPRESS, resolution, targets, labels={"io.nanocloud.capabilities": "CAP_CHOWN"})


async def test_a_first_plan_is_shown_whole(workload: WorkloadPlan) -> None:
    digest = workload.digest
    step = workload.bindings[0].id
    assert diff(None, workload).text().splitlines() == [
        f"+ image wordpress: wordpress@{digest}",
        "+ service database: mariadb (to be installed)",
        "+ option database: mariadb (choice default)",
        "+ option database_host: mariadb.default.svc (import of mariadb)",
        "+ option database_name: wordpress (default)",
        "+ option database_password: ******** (macro !rand)",
        "+ option database_user: wordpress (default)",
        "+ option env_DB_HOST: mariadb.default.svc (default)",
        "+ option env_DB_NAME: wordpress (default)",
        "+ option env_DB_PASSWORD: ******** (default)",
        "+ option port_1: 8080->80 (default)",
        "+ option volume_1: /var/www/html (default)",
        "+ option volume_size_1: 1Gi (default)",
        f"+ binding {step}: create_user $database_name $database_user $database_password in mariadb",
        "+ volume volume-1-wordpress-0: 1Gi at /var/www/html",
        "+ port 8080->80/tcp",
        "+ secret wordpress-options: database_password, env_DB_PASSWORD",
        "+ security capabilities: CHOWN",
    ]


async def test_equal_plans_differ_in_nothing(workload: WorkloadPlan) -> None:
    assert not diff(workload, workload)
    assert diff(workload, workload).text() == "no changes"
    assert diff(workload, workload).to_json() == []


async def test_a_change_names_both_values(workload: WorkloadPlan) -> None:
    other = await planned({"database_name": "blog", "port_1": "9090->80", "database_transport": "tls"})
    changes = diff(workload, other)
    assert {
        "section": "port",
        "name": "8080->80/tcp",
        "change": "removed",
        "before": "8080->80/tcp",
    } in changes.to_json()
    lines = changes.text().splitlines()
    assert "~ option database_name: wordpress (default) -> blog (given)" in lines
    assert "- port 8080->80/tcp" in lines
    assert "+ port 9090->80/tcp" in lines
    assert "+ tls wordpress-tls: certificate of the node's CA" in lines
    assert any(line.startswith("~ binding database-create-user-") for line in lines)


async def test_a_changed_secret_is_seen_and_not_shown(workload: WorkloadPlan) -> None:
    other = await planned({"database_password": "hunter2"})
    changes = diff(workload, other)
    assert "~ option database_password: ******** (macro !rand) -> ******** (given)" in changes.text().splitlines()
    shown = changes.text() + json.dumps(changes.to_json()) + repr(changes) + json.dumps(describe(other))
    assert "hunter2" not in shown
    assert "random1" not in shown


async def test_removing_a_bundle_removes_everything(workload: WorkloadPlan) -> None:
    assert all(line.startswith("- ") for line in diff(workload, None).text().splitlines())


async def test_a_label_cannot_move_the_readers_cursor(workload: WorkloadPlan) -> None:
    other = await planned({"database_name": "a\x1b[2J\nb"})
    assert "a\\x1b[2J\\nb" in diff(workload, other).text()
    assert all(line.isprintable() for line in diff(workload, other).text().splitlines())


async def test_a_plan_as_json(workload: WorkloadPlan) -> None:
    described = describe(workload)
    assert described["options"]["database_password"] == {"value": "********", "source": "macro !rand", "secret": True}
    assert described["servicesToAdd"] == ["mariadb"]
    assert described["bindings"][0]["arguments"] == ["$database_name", "$database_user", "$database_password"]
    assert described["volumes"] == [{"claim": "volume-1-wordpress-0", "size": "1Gi", "mountPath": "/var/www/html"}]
    assert described["secrets"] == [{"name": "wordpress-options", "keys": ["database_password", "env_DB_PASSWORD"]}]
    assert described["security"] == {"capabilities": ["CHOWN"]}
    assert json.loads(json.dumps(described)) == described


async def test_provenance_alone_is_no_change(workload: WorkloadPlan) -> None:
    option = workload.options["database_name"]
    kept = {**workload.options, "database_name": attrs.evolve(option, source="profile")}
    assert not diff(workload, attrs.evolve(workload, options=kept))
