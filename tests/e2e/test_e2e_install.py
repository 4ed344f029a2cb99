"""Installing, using and removing services on a real node."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from nodes import TestNode, is_ready

ROUNDS = 20


@pytest.fixture(scope="module")
def app(node: TestNode) -> Iterator[TestNode]:
    """The node with ``tinyapp`` installed."""
    node.cli("install", "tinyapp")
    yield node
    node.cli("uninstall", "tinyapp")


def test_installing_an_application_brings_its_database(app: TestNode) -> None:
    assert is_ready(app.bundle("tinyapp"))
    assert is_ready(app.bundle("tinydb"))
    assert app.bundle("tinydb")["metadata"]["annotations"]["nanocloud.io/installed-for"] == "tinyapp"
    assert "app " in app.cli("exec", "tinydb", "--", "cat", "/data/users").stdout


def test_a_binding_runs_once_and_before_the_application_starts(app: TestNode) -> None:
    told = [(e["reason"], e["involvedObject"]["name"]) for e in app.events()]
    assert told.count(("BindingCompleted", "tinyapp")) == 1
    assert told.index(("Started", "tinydb-0")) < told.index(("BindingStarted", "tinyapp"))
    assert told.index(("BindingCompleted", "tinyapp")) < told.index(("Started", "tinyapp-0"))
    (binding,) = app.bundle("tinyapp")["status"]["bindings"]
    assert (binding["command"], binding["target"], binding["attempts"]) == ("create_user", "tinydb", 1)


def test_status_shows_services_pods_and_what_happened(app: TestNode) -> None:
    rows = [line.split() for line in app.cli("status").stdout.splitlines()]
    assert [row[:5] for row in rows[1:]] == [
        ["default", "tinyapp", "tinyapp", "yes", "Running"],
        ["default", "tinydb", "tinydb", "yes", "Running"],
    ]
    pods = [line.split() for line in app.cli("status", "--pods").stdout.splitlines()]
    assert [row[1:5] for row in pods[1:]] == [["tinyapp-0", "1/1", "Running", "0"], ["tinydb-0", "1/1", "Running", "0"]]
    detail = app.cli("status", "tinyapp").stdout
    for part in ("create_user", "Completed", "database_host", "tinydb.default.svc", "ProfilePrepared"):
        assert part in detail
    assert "BindingCompleted" in app.cli("events", "--bundle", "tinyapp").stdout


def test_a_generated_password_is_nowhere_in_plaintext(app: TestNode) -> None:
    password = app.env_of("tinyapp")["DB_PASSWORD"]
    assert len(password) == 24
    wanted = [password.encode(), base64.b64encode(password.encode()).rstrip(b"=")]
    memory = {(app.run_dir / "runtime").stat().st_dev}  # a tmpfs that is never swapped out
    files = 0
    for top in (app.state_dir, app.run_dir):
        for folder, _, names in os.walk(top):
            for path in (Path(folder) / name for name in names):
                if path.is_symlink() or not path.is_file() or path.stat().st_dev in memory:
                    continue
                if path.parent == app.run_dir / "netns":
                    continue
                files += 1
                content = path.read_bytes()
                assert not any(word in content for word in wanted), f"{path} holds the password"
    assert files > 20
    shown = app.cli("status", "tinyapp", "-o", "json").stdout + app.cli("events").stdout
    assert password not in shown
    assert password not in (app.server.log if app.server else "")


def test_names_of_services_resolve_in_pods(app: TestNode) -> None:
    address = app.pod("tinydb")["status"]["podIP"]
    for name in ("tinydb", "tinydb.default.svc", "tinydb.nanocloud.local"):
        page = app.cli("exec", "tinyapp", "--", "sh", "-c", f"nc {name} 5000 < /dev/null").stdout
        assert page.startswith("app "), f"{name} did not lead to the database"
        # Without a search domain the resolver of busybox asks for what stands there; so the full names.
        if "." in name:
            assert address in app.cli("exec", "tinyapp", "--", "nslookup", name, code=None).stdout


def test_logs_and_exec_reach_the_container(app: TestNode) -> None:
    assert app.cli("logs", "tinydb").stdout == "database is starting\n"
    assert app.cli("logs", "tinyapp", "--tail", "1").stdout == "app is up\n"
    assert app.cli("exec", "tinydb", "--", "sh", "-c", "echo out; echo err >&2; exit 7", code=7).stderr == "err\n"
    assert app.cli("exec", "-i", "tinydb", "--", "md5sum", stdin="abc").stdout.split()[0] == (
        "900150983cd24fb0d6963f7d28e17f72"
    )


def test_a_stopped_service_keeps_its_data_and_address(app: TestNode) -> None:
    before = app.pod("tinydb")["status"]["podIP"]
    app.cli("exec", "tinydb", "--", "sh", "-c", "echo kept > /data/note")
    app.cli("stop", "tinydb")
    assert app.get("pods", "tinydb-0") is None
    assert "Stopped" in app.cli("status").stdout
    app.cli("start", "tinydb")
    assert app.pod("tinydb")["status"]["podIP"] == before
    assert app.cli("exec", "tinydb", "--", "cat", "/data/note").stdout == "kept\n"


def test_a_restart_gives_a_new_pod_with_the_same_credentials(app: TestNode) -> None:
    before, password = app.pod("tinyapp"), app.env_of("tinyapp")["DB_PASSWORD"]
    app.cli("restart", "tinyapp")
    assert app.pod("tinyapp")["metadata"]["uid"] != before["metadata"]["uid"]
    assert app.env_of("tinyapp")["DB_PASSWORD"] == password
    assert [e["reason"] for e in app.events()].count("BindingCompleted") == 1


def test_a_used_service_is_not_uninstalled(app: TestNode) -> None:
    refused = app.cli("uninstall", "tinydb", code=1).stderr
    assert refused.startswith("error: tinydb is used by tinyapp\n")
