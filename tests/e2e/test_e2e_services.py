"""Services on a real node: signals, published ports, secrets in arguments, and what many rounds leave behind."""

from __future__ import annotations

import os
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

from inventory import take_inventory
from nodes import NANOCLOUD, TestNode, is_gone, is_ready
from tinyimages import APP_FILES, APP_OPTIONS, DATABASE_EXPORTS, DATABASE_FILES, DATABASE_OPTIONS

from nanocloud.client.api import bundles_path

ROUNDS = 20


def test_a_stop_signal_that_is_honoured_ends_the_container_itself(node: TestNode) -> None:
    script = "#!/bin/sh\ntrap 'echo said goodbye; exit 0' TERM\necho up\nwhile :; do sleep 1000 & wait $!; done\n"
    node.layout.add("polite", command=["/serve.sh"], files={"/serve.sh": script}, stop_signal="SIGTERM")
    node.cli("install", "polite")
    follow = node.spawn(NANOCLOUD, "logs", "-f", "polite", stdout=subprocess.PIPE)
    assert follow.stdout is not None
    assert follow.stdout.readline() == b"up\n"
    node.cli("stop", "polite", seconds=15)  # far below the 30 s of grace
    assert follow.communicate(timeout=15)[0] == b"said goodbye\n"
    node.cli("uninstall", "polite")


def test_a_published_port_answers_on_the_node(node: TestNode) -> None:
    node.cli("install", "tinydb")
    node.cli("install", "tinyapp", "-o", "port_1=18080->8080")
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with node.entered(), opener.open("http://127.0.0.1:18080/", timeout=10) as answer:
            assert answer.read().startswith(b"app ")
    finally:
        node.cli("uninstall", "tinyapp")
        node.cli("uninstall", "tinydb")


def test_many_installations_leave_what_they_found(node: TestNode) -> None:
    for number in range(ROUNDS + 1):
        if number == 1:  # after one round, for a node's folders are made when they are first needed
            before, descriptors = take_inventory(node), _descriptors(node)
        node.create("tinyapp")
        node.until("bundles", "tinyapp", is_ready)
        node.request("DELETE", bundles_path("default", "tinyapp"))
        node.until("bundles", "tinyapp", is_gone)
        node.until("bundles", "tinydb", is_gone)
    assert take_inventory(node) == before
    assert _descriptors(node) <= descriptors + 2  # idle connections of the last moment


def _descriptors(node: TestNode) -> int:
    assert node.server is not None
    return len(os.listdir(f"/proc/{node.server.pid}/fd"))


def test_no_secret_shows_in_process_arguments_while_a_binding_runs(node: TestNode) -> None:
    slow = DATABASE_FILES["/usr/lib/nanocloud/bindings/create_user"].replace(
        "#!/bin/sh\n", "#!/bin/sh\nread line < /data/gate\n"
    )
    files = DATABASE_FILES | {
        "/serve.sh": "#!/bin/sh\nmkfifo /data/gate\nchmod 666 /data/gate\n" + DATABASE_FILES["/serve.sh"],
        "/usr/lib/nanocloud/bindings/create_user": slow,
    }
    labels = {"io.nanocloud.options": DATABASE_OPTIONS, "io.nanocloud.exports": DATABASE_EXPORTS}
    node.layout.add("slowdb", command=["/serve.sh"], files=files, labels=labels)
    options = {key.replace("tinydb", "slowdb"): value for key, value in APP_OPTIONS.items()}
    node.layout.add("slowapp", command=["/serve.sh"], files=APP_FILES, labels={"io.nanocloud.options": options})
    node.create("slowapp")
    node.until("bundles", "slowapp", lambda b: "Running" in [x.get("phase") for x in _bindings(b)])
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _readable(path)]
    # Opening the pipe waits until the binding reads it: so it was running, and goes on only now.
    node.cli("exec", "slowdb", "--", "sh", "-c", "echo go > /data/gate")
    node.until("bundles", "slowapp", is_ready)
    password = node.env_of("slowapp")["DB_PASSWORD"].encode()
    assert password
    assert not [command for command in commands if password in command]
    node.cli("uninstall", "slowapp")


def _bindings(bundle: dict[str, Any] | None) -> list[dict[str, Any]]:
    return ((bundle or {}).get("status") or {}).get("bindings") or []


def _readable(path: Path) -> bool:
    try:
        return bool(path.read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return False
