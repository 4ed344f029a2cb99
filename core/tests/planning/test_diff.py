from __future__ import annotations

import json

import attrs
import pytest

from nanocloud.planning import DesiredBundle, WorkloadPlan, describe, diff
from nanocloud.planning.diff import state_change
from nanocloud.planning.profile import BindingRecord
from nanocloud.providers.binding import BindingResult
from nanocloud.testkit.planning import WORDPRESS, plan_label, profile_of, resolve_label, target


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


async def test_data_that_does_not_come_along_is_told() -> None:
    settings = {
        "?db=&mariadb": ["&create_user app"],
        "?db=&postgres": ["&create_user app"],
        "volume_1": ["/data"],
        "?volume_2": [],
    }
    both = [await target(), await target("postgres")]
    first = plan_label(settings, await resolve_label(settings, {"db": "mariadb", "volume_2": "/b"}, targets=both), both)
    second = plan_label(
        settings, await resolve_label(settings, {"db": "postgres", "volume_1": "/c"}, targets=both), both
    )
    old, new = first.bindings[0].id, second.bindings[0].id
    lines = diff(first, second).text().splitlines()
    assert lines[0] == (
        "~ service db: mariadb (to be installed) -> postgres (to be installed) (data in mariadb does not come along)"
    )
    assert f"- binding {old}: create_user app in mariadb (what it made in mariadb stays there)" in lines
    assert f"+ binding {new}: create_user app in postgres" in lines
    assert any(
        line.startswith("~ volume volume-1-wordpress-0: 1Gi at /data -> 1Gi at /c (the same volume with its data")
        for line in lines
    )
    assert any(
        line.startswith("- volume volume-2-wordpress-0: 1Gi at /b (no longer mounted; it stays with its data until")
        for line in lines
    )
    assert lines[-1] == "~ pod wordpress-0: as it is -> replaced (the service is away for a moment)"
    assert diff(first, second).to_json()[0]["note"] == "data in mariadb does not come along"
    # What goes as a whole needs no such notes.
    assert "does not come along" not in diff(first, None).text()


async def test_a_new_secret_replaces_the_pod_and_what_no_pod_sees_does_not() -> None:
    settings = {"db=&mariadb": ["&create_user $name"], "name": ["a"], "password": ["!rand 8 hex"]}
    targets = [await target()]

    async def made(**given: str) -> WorkloadPlan:
        return plan_label(settings, await resolve_label(settings, given, targets=targets), targets)

    first = await made()
    assert "pod" in {change.section for change in diff(first, await made(password="other")).changes}
    assert "pod" not in {change.section for change in diff(first, await made(name="b")).changes}


async def test_bindings_that_would_run_once_more_are_a_change() -> None:
    settings = {"db=&mariadb": ["&create_user app"]}
    targets = [await target()]
    resolution = await resolve_label(settings, targets=targets)
    step = plan_label(settings, resolution, targets).bindings[0]
    record = BindingRecord(
        command="create_user",
        target="mariadb",
        attempts=1,
        result=BindingResult.COMPLETED,
        fingerprint=step.fingerprint,
    )
    profile = profile_of(resolution).record(step.id, record)
    done = plan_label(settings, resolution, targets, profile=profile)
    forced = plan_label(
        settings,
        resolution,
        targets,
        profile=profile,
        desired=DesiredBundle(namespace="default", name="wordpress", service="wordpress", force_bindings=True),
    )
    assert not diff(done, done)
    assert diff(done, forced).text() == f"~ binding {step.id}: done -> create_user app in mariadb"
    # One that is under way is no change.
    assert not diff(forced, forced)


def test_whether_the_service_runs() -> None:
    assert state_change(True, True) == state_change(None, True) == ()
    (stopped,) = state_change(True, False)
    assert (stopped.before, stopped.after, stopped.kind.value) == ("running", "stopped", "changed")
    (born,) = state_change(None, False)
    assert (born.after, born.kind.value) == ("stopped", "added")
