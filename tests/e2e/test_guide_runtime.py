"""The runtime of "Write a runtime in 30 minutes" on real nodes: services run on it, and outlive the server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from catalogue import MINUTES, catalogue_node
from nodes import NANOCLOUD, TestNode, making_node

sys.path.insert(0, str(Path(__file__).parents[1]))  # the modules beside this folder

from documents import ROOT, write_files
from environments import UV

pytestmark = [
    pytest.mark.skipif(UV is None, reason="needs uv"),
    pytest.mark.skipif(shutil.which("runc") is None, reason="needs runc"),
]


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The package of the page, installed where the commands and servers of this module find it."""
    folder = tmp_path_factory.mktemp("guide")
    subprocess.run([NANOCLOUD, "plugin", "new", "my-runtime", "--provides", "runtime"], check=True, cwd=folder)
    write_files(ROOT / "docs" / "write-a-runtime.md", folder / "nanocloud-my-runtime")
    assert UV is not None
    install = [
        UV,
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--python",
        sys.executable,
        "--target",
        str(folder / "site"),
    ]
    subprocess.run([*install, str(folder / "nanocloud-my-runtime")], check=True, cwd=folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder / "site"))
        yield


def chosen(name: str) -> str:
    """The configuration of a node in a folder of that name; its groups are where ``TestNode`` looks for them."""
    return f'[node]\nruntime = "my-runtime"\n\n[my-runtime]\ncgroup = "/nce2e-{os.getpid()}-{name}"\n'


def test_a_service_runs_on_the_guides_runtime(plugin: None, nodes_folder: Path) -> None:
    with making_node(nodes_folder / "guide", config=chosen("guide")) as node:
        used = {row["name"]: row for row in json.loads(node.cli("plugin", "list", "-o", "json").stdout)}
        assert used["my-runtime"]["state"] == "active"
        node.cli("install", "tinyapp")
        assert "app " in node.cli("exec", "tinydb", "--", "cat", "/data/users").stdout
        assert node.cli("exec", "-i", "tinydb", "--", "cat", stdin="there and back").stdout == "there and back"
        before = {service: node.process_of(service) for service in ("tinyapp", "tinydb")}
        node.stop(signal.SIGKILL)
        node.start()
        node.until_settled("tinyapp")
        assert {service: node.process_of(service) for service in before} == before
        node.cli("restart", "tinydb")
        assert node.process_of("tinydb") != before["tinydb"]
        node.cli("uninstall", "tinyapp")


@pytest.mark.images
def test_the_demo_runs_on_the_guides_runtime(plugin: None, nodes_folder: Path) -> None:
    # ``catalogue_node`` numbers its nodes; this is the only one of this module.
    with catalogue_node(nodes_folder, "mariadb", "wordpress", config=chosen("demo")) as node:
        node.cli("install", "wordpress", "--option", "database=mariadb", "--timeout", "5m", seconds=MINUTES)
        assert "<title>A WordPress on Nanocloud</title>" in front_page(node)
        node.stop(signal.SIGKILL)
        assert "A WordPress on Nanocloud" in front_page(node)
        node.start()
        node.until_settled("wordpress")
        assert "ready for connections" in node.cli("logs", "mariadb").stdout
        node.cli("uninstall", "wordpress", seconds=MINUTES)


def front_page(node: TestNode) -> str:
    return node.run("curl", "-sSf", "--max-time", "20", "http://127.0.0.1:8080/").stdout
