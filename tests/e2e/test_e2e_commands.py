"""The command line on a real node: exit statuses, ``--curl``, stopping, a second server, setup, reset, plugins."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from inventory import (
    cgroups_named,
    environments_of,
    loops_below,
    mounts_below,
    processes_of,
    take_inventory,
)
from nodes import NANOCLOUD, TestNode, is_ready, making_node

from nanocloud.client.api import bundles_path

PLUGINS = ("runtime-crun", "cni-bridge", "csi-loop", "dockyard")
SHOWN = {
    "install": "install tinydb -o port=1",
    "install --dry-run": "install tinydb --dry-run",
    "uninstall": "uninstall tinydb",
    "stop": "stop tinydb",
    "start": "start tinydb",
    "restart": "restart tinydb",
    "status": "status",
    "status of one": "status tinydb",
    "logs": "logs tinydb",
    "events": "events",
    "exec": "exec tinydb -- true",
    "token": "token",
}


@pytest.mark.parametrize("case", SHOWN)
def test_curl_shows_the_request_and_sends_nothing(node: TestNode, case: str) -> None:
    assert node.server is not None
    requests = len(node.server.lines)
    words = SHOWN[case].split()
    end = words.index("--") if "--" in words else len(words)
    shown = node.cli(*words[:end], "--curl", *words[end:]).stdout
    assert ("kubectl exec" if case == "exec" else "curl --cacert ") in shown
    assert len(shown.splitlines()) == 1
    assert node.request("GET", bundles_path(None))["items"] == []
    assert len(node.server.lines) == requests


def test_the_shown_request_is_the_one_that_would_be_sent(node: TestNode) -> None:
    shown = node.cli("status", "--curl").stdout
    answer = node.run("sh", "-c", f"{shown.strip()} -sS")
    assert '"kind":"BundleList"' in answer.stdout.replace(" ", "")


def test_exit_statuses(node: TestNode) -> None:
    assert "no services" in node.cli("status", code=0).stdout
    assert 'bundles.nanocloud.io "nosuch" not found' in node.cli("status", "nosuch", code=1).stderr
    assert "No such command" in node.cli("nosuch", code=2).stderr
    assert "Missing argument" in node.cli("install", code=2).stderr
    elsewhere = {"NANOCLOUD_LISTEN": "127.0.0.1:1"}
    unreachable = node.cli("status", code=2, environment=elsewhere).stderr
    assert unreachable == "error: nothing listens at https://127.0.0.1:1\n  start it with: sudo nanocloud server\n"
    assert "allowed: table, wide, json, yaml" in node.cli("status", "-o", "xml", code=2).stderr
    broken = node.cli("status", code=2, environment={"NANOCLOUD_CONFIG": "/nonexistent.toml"}).stderr
    assert broken == "error: NANOCLOUD_CONFIG names /nonexistent.toml, which does not exist\n"


def test_a_dry_run_shows_the_plan_and_changes_nothing(node: TestNode) -> None:
    before = take_inventory(node)
    plan = node.cli("install", "tinyapp", "--dry-run", code=2).stdout
    for part in ("install tinydb", "install tinyapp", "create_user", "/data", "32Mi"):
        assert part in plan
    assert node.request("GET", bundles_path(None))["items"] == []
    assert take_inventory(node) == before


def test_setup_repeats_safely_also_while_a_server_runs(node: TestNode) -> None:
    certificate = (node.state_dir / "secure_assets" / "ca.crt").read_bytes()
    assert "a server is running" in node.cli("setup").stdout
    assert "a server is running" in node.cli("setup", "--repair").stdout
    assert (node.state_dir / "secure_assets" / "ca.crt").read_bytes() == certificate
    node.cli("status")


def test_a_second_server_on_the_same_folder_is_refused(node: TestNode) -> None:
    said = node.cli("server", "--listen", "127.0.0.1:7443", code=1).stderr
    assert node.server is not None
    assert f"{node.state_dir}/keyspace is in use by process {node.server.pid}\n" in said
    assert len(said.splitlines()) == 2
    node.cli("status")


def test_a_reset_under_a_running_server_is_refused(node: TestNode) -> None:
    said = node.cli("reset", "--yes", code=1).stderr
    assert said.startswith("error: ")
    node.cli("status")


def test_plugins_are_listed_with_their_state(node: TestNode) -> None:
    rows = {line.split()[0]: line for line in node.cli("plugin", "list").stdout.splitlines()[1:]}
    for name in PLUGINS:
        assert f"nanocloud-{name}" in rows[name]


def test_a_signal_ends_the_server_though_clients_listen(new_node: Callable[..., TestNode]) -> None:
    node = new_node()
    node.create("tinydb")
    node.until("bundles", "tinydb", is_ready)
    listeners = [
        node.spawn(NANOCLOUD, "logs", "-f", "tinydb", stdout=subprocess.PIPE, stderr=subprocess.PIPE),
        node.spawn(NANOCLOUD, "status", "--watch", stdout=subprocess.PIPE, stderr=subprocess.PIPE),
        node.spawn(NANOCLOUD, "events", "--follow", stdout=subprocess.PIPE, stderr=subprocess.PIPE),
        node.spawn(NANOCLOUD, "exec", "tinydb", "--", "sh", "-c", "echo in; sleep 1000", stdout=subprocess.PIPE),
    ]
    for listener in listeners:
        assert listener.stdout is not None
        assert listener.stdout.readline()
    assert node.stop() < 3.0
    assert node.server is not None
    assert node.server.process.returncode == 0
    assert "Traceback" not in node.server.log
    for listener in listeners:
        listener.communicate(timeout=10)
    # What the clients ran in the container went with them; the container did not.
    assert not [line for line in processes_of(node.cgroup, str(node.folder)) if "sleep 1000" in line]
    node.start()
    node.until("bundles", "tinydb", is_ready)
    assert node.pod("tinydb")["status"]["containerStatuses"][0]["restartCount"] == 0


def test_a_reset_leaves_nothing(nodes_folder: Path) -> None:
    with making_node(nodes_folder / "reset") as node:
        node.cli("install", "tinyapp")
        node.stop()
        said = node.cli("reset", "--yes").stdout
        assert f"removed {node.state_dir}" in said
        assert not node.state_dir.exists()
        assert not node.run_dir.exists()
        folder = str(node.folder)
        assert mounts_below(folder) == [str(node.network_file)]
        assert loops_below(folder) == cgroups_named(node.cgroup) == []
        assert processes_of(node.cgroup, folder) == environments_of(folder) == []
        assert "nanocloud" not in node.run("nft", "list", "tables").stdout
        assert "nanocloud0" not in node.run("ip", "link").stdout
        # Once more, on a machine that is no node any more; the end of the test does it again.
        node.cli("reset", "--yes")


def test_with_core_alone_the_api_works_and_install_says_what_is_missing(new_node: Callable[..., TestNode]) -> None:
    node = new_node(environment={"NANOCLOUD_DISABLE_PLUGINS": ",".join(PLUGINS)})
    assert "no services" in node.cli("status").stdout
    said = node.cli("install", "tinydb", code=1).stderr
    assert said.startswith("error: no runtime provider is installed")
    assert "pip install nanocloud-runtime-crun" in said
    assert node.request("GET", bundles_path(None))["items"] == []
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}}
    node.request("POST", "/api/v1/namespaces/default/configmaps", body=body)
    found = node.get("configmaps", "c")
    assert found is not None
    assert found["data"] == {"a": "b"}
    node.create("tinydb")
    bundle = node.until_settled("tinydb")
    assert bundle["status"]["reason"] == "PluginMissing"
