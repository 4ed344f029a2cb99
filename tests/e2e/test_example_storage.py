"""The storage and the macro of docs/examples on real nodes, from an environment of their own: the demo's services come
up on LMDB, and are found again after the server was killed."""

from __future__ import annotations

import json
import re
import signal
import sys
from pathlib import Path

import pytest
from catalogue import MINUTES, catalogue_node
from inventory import take_inventory
from nodes import TestNode, is_gone, making_node
from tinyimages import DATABASE_FILES, Layout

sys.path.insert(0, str(Path(__file__).parents[1]))  # the modules beside this folder

from environments import UV, installed

CHOSEN = '[node]\nstorage = "lmdb"\n'
DISTRIBUTIONS = (
    "core",
    "plugins/runtime-crun",
    "plugins/cni-bridge",
    "plugins/csi-loop",
    "plugins/dockyard",
    "docs/examples/nanocloud-storage-lmdb",
    "docs/examples/nanocloud-macro-passphrase",
)
WORDS = re.compile(r"[b-z][aiou][b-z][aiou][b-z](-[b-z][aiou][b-z][aiou][b-z]){5}")
pytestmark = pytest.mark.skipif(UV is None, reason="needs uv")


@pytest.fixture(scope="module")
def nanocloud(nodes_folder: Path) -> Path:
    """The command of the environment."""
    return installed(nodes_folder / "venv", *DISTRIBUTIONS)


def add_guarded(layout: Layout) -> None:
    """A service whose password is made by the macro."""
    options = {"password": ["!passphrase 6"], "env_PASSWORD": ["*password", "$password"]}
    layout.add("guarded", command=["/serve.sh"], files=DATABASE_FILES, labels={"io.nanocloud.options": options})


def is_on_lmdb(node: TestNode) -> bool:
    return (node.state_dir / "storage-lmdb" / "store.mdb").exists() and not (node.state_dir / "keyspace").exists()


def test_services_live_on_it_and_are_found_again(nanocloud: Path, nodes_folder: Path) -> None:
    with making_node(nodes_folder / "lmdb", config=CHOSEN, nanocloud=nanocloud) as node:
        add_guarded(node.layout)
        assert is_on_lmdb(node)
        used = {row["name"]: row["state"] for row in json.loads(node.cli("plugin", "list", "-o", "json").stdout)}
        assert (used["storage-lmdb"], used["macro-passphrase"]) == ("active", "active")
        install(node, "tinyapp")
        uninstall(node, "tinyapp", "tinydb")
        before = take_inventory(node)  # after one round, for a node's folders are made when they are first needed
        install(node, "guarded", "tinyapp")
        password = node.env_of("guarded")["PASSWORD"]
        assert WORDS.fullmatch(password)
        for words in (["status", "guarded", "-o", "json"], ["events"], ["install", "guarded", "--dry-run"]):
            assert password not in node.cli(*words).stdout
        processes = {service: node.process_of(service) for service in ("guarded", "tinyapp", "tinydb")}

        for _ in range(3):
            node.stop(signal.SIGKILL)
            node.start()
            for service in processes:
                node.until_settled(service)
        assert {service: node.process_of(service) for service in processes} == processes
        node.cli("restart", "guarded")
        assert node.env_of("guarded")["PASSWORD"] == password, "it is decided once"

        uninstall(node, "guarded", "tinyapp", "tinydb")
        assert take_inventory(node) == before


def test_a_running_server_keeps_the_node_from_being_reset(nanocloud: Path, nodes_folder: Path) -> None:
    with making_node(nodes_folder / "held", config=CHOSEN, nanocloud=nanocloud) as node:
        refused = node.cli("reset", "--yes", code=1)
        assert node.server is not None
        assert f"is in use by process {node.server.pid}" in refused.stderr
        node.cli("install", "tinydb")


@pytest.mark.images
def test_the_demo_runs_on_it(nanocloud: Path, nodes_folder: Path) -> None:
    with catalogue_node(nodes_folder, "mariadb", "wordpress", config=CHOSEN, nanocloud=nanocloud) as node:
        before = what_services_hold(node)
        words = ("--option", "database=mariadb", "--option", "database_transport=tls", "--timeout", "5m")
        node.cli("install", "wordpress", *words, seconds=MINUTES)
        assert "<title>A WordPress on Nanocloud</title>" in front_page(node)
        processes = {service: node.process_of(service) for service in ("mariadb", "wordpress")}

        node.stop(signal.SIGKILL)
        assert "A WordPress on Nanocloud" in front_page(node)
        node.start()
        node.until_settled("wordpress")
        assert {service: node.process_of(service) for service in processes} == processes
        bindings = json.loads(node.cli("status", "wordpress", "-o", "json").stdout)["status"]["bindings"]
        assert [(b["command"], b["phase"], b["attempts"]) for b in bindings] == [("create_user", "Completed", 1)]
        assert is_on_lmdb(node)

        node.cli("uninstall", "wordpress", seconds=MINUTES)
        node.until("bundles", "mariadb", is_gone)
        assert what_services_hold(node) == before


def install(node: TestNode, *services: str) -> None:
    for service in services:
        node.cli("install", service)


def uninstall(node: TestNode, *services: str) -> None:
    """The last of them goes with the one that asked for it."""
    for service in services[:-1]:
        node.cli("uninstall", service)
    node.until("bundles", services[-1], is_gone)


def what_services_hold(node: TestNode) -> dict[str, list[str]]:
    """Without the node's own folders and groups, which are made when they are first needed, and stay."""
    return {kind: found for kind, found in take_inventory(node).items() if kind not in ("files", "cgroups")}


def front_page(node: TestNode) -> str:
    return node.run("curl", "-sSf", "--max-time", "20", "http://127.0.0.1:8080/").stdout
