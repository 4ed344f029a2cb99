"""``kill -9`` of the server at any moment, and of what it runs: nothing is lost, nothing is left behind."""

from __future__ import annotations

import os
import random
import re
import select
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from inventory import take_inventory
from nodes import TestNode, is_gone, is_ready, making_node, phase

from nanocloud.client.api import bundles_path

INSTALL_SECONDS, REMOVE_SECONDS = 0.6, 0.3
_spread = random.Random(20)
INSTALL_MOMENTS = [round(INSTALL_SECONDS * (step + _spread.random()) / 15, 3) for step in range(15)]
REMOVE_MOMENTS = [round(REMOVE_SECONDS * (step + _spread.random()) / 5, 3) for step in range(5)]


@pytest.fixture(scope="module")
def found(node: TestNode) -> dict[str, list[str]]:
    """What the node has while it has no service."""
    node.create("tinyapp")
    node.until("bundles", "tinyapp", is_ready)
    remove(node)
    return take_inventory(node)


def remove(node: TestNode) -> None:
    for name in ("tinyapp", "tinydb"):
        if node.get("bundles", name) is not None:
            node.request("DELETE", bundles_path("default", name))
            node.until("bundles", name, is_gone)


def crash(node: TestNode, seconds: float) -> None:
    assert node.server is not None
    assert node.server.runs_for(seconds), node.server.log
    node.stop(signal.SIGKILL)


@pytest.mark.parametrize("seconds", INSTALL_MOMENTS)
def test_an_installation_goes_on_after_the_server_was_killed(
    node: TestNode, found: dict[str, list[str]], seconds: float
) -> None:
    node.create("tinyapp")
    crash(node, seconds)
    node.start()
    bundle = node.until_settled("tinyapp")
    assert is_ready(bundle), bundle["status"]
    (binding,) = bundle["status"]["bindings"]
    assert binding["phase"] == "Completed"
    assert [e["reason"] for e in node.events() if e["metadata"]["uid"]].count("BindingFailed") == 0
    users = node.cli("exec", "tinydb", "--", "cat", "/data/users").stdout
    assert re.fullmatch(r"app [0-9a-f]{32}  -\n", users)
    assert {c["restartCount"] for s in ("tinyapp", "tinydb") for c in node.pod(s)["status"]["containerStatuses"]} == {0}
    remove(node)
    assert take_inventory(node) == found


@pytest.mark.parametrize("seconds", REMOVE_MOMENTS)
def test_a_removal_goes_on_after_the_server_was_killed(
    node: TestNode, found: dict[str, list[str]], seconds: float
) -> None:
    node.create("tinyapp")
    node.until("bundles", "tinyapp", is_ready)
    node.request("DELETE", bundles_path("default", "tinyapp"))
    crash(node, seconds)
    node.start()
    node.until("bundles", "tinyapp", is_gone)
    node.until("bundles", "tinydb", is_gone)
    assert take_inventory(node) == found


@pytest.fixture(scope="module")
def busy(nodes_folder: Path) -> Iterator[TestNode]:
    """A node that runs ``chatty``, which counts in its log, and ``mortal``, which ends with 7 when told."""
    chatty = "#!/bin/sh\ni=0\nwhile :; do echo line $i; i=$((i+1)); sleep 0.01; done\n"
    mortal = "#!/bin/sh\ntrap 'exit 7' USR1\necho alive\nwhile :; do sleep 1000 & wait $!; done\n"
    with making_node(nodes_folder / "busy") as node:
        for name, script in (("chatty", chatty), ("mortal", mortal)):
            node.layout.add(name, command=["/serve.sh"], files={"/serve.sh": script})
            node.create(name)
        for name in ("chatty", "mortal"):
            node.until("bundles", name, is_ready)
        yield node


def container(node: TestNode, service: str) -> dict[str, Any]:
    (status,) = node.pod(service)["status"]["containerStatuses"]
    return status


def test_containers_outlive_the_server_and_are_adopted(busy: TestNode) -> None:
    before = {name: (busy.process_of(name), container(busy, name)["containerID"]) for name in ("chatty", "mortal")}
    busy.stop(signal.SIGKILL)
    for pid, _ in before.values():
        os.kill(pid, 0)
    busy.start()
    for name, known in before.items():
        found = busy.until("bundles", name, is_ready)
        assert found is not None
        assert phase(found) == "Running"
        assert (busy.process_of(name), container(busy, name)["containerID"]) == known
        assert container(busy, name)["restartCount"] == 0
    assert busy.cli("exec", "mortal", "--", "echo", "still here").stdout == "still here\n"


def test_the_log_of_a_container_has_no_gap_where_the_server_was_killed(busy: TestNode) -> None:
    lines = busy.cli("logs", "chatty").stdout.splitlines()
    assert len(lines) > 50
    assert lines == [f"line {number}" for number in range(len(lines))]


def test_how_a_container_ended_while_no_server_ran_is_known(busy: TestNode) -> None:
    pid = busy.process_of("mortal")
    busy.stop(signal.SIGKILL)
    descriptor = os.pidfd_open(pid)
    os.kill(pid, signal.SIGUSR1)
    assert select.select([descriptor], [], [], 10)[0]
    os.close(descriptor)
    busy.start()
    busy.until("pods", "mortal-0", lambda pod: is_ready(pod) and restarts(pod) == 1)
    ended = container(busy, "mortal")["lastState"]["terminated"]
    assert ended["exitCode"] == 7
    assert busy.cli("logs", "mortal", "--previous").stdout == "alive\n"


def test_a_killed_container_is_started_again(busy: TestNode) -> None:
    os.kill(busy.process_of("chatty"), signal.SIGKILL)
    busy.until("pods", "chatty-0", lambda pod: is_ready(pod) and restarts(pod) == 1)
    assert container(busy, "chatty")["lastState"]["terminated"]["exitCode"] == 137
    busy.until("bundles", "chatty", is_ready)


def restarts(pod: dict[str, Any] | None) -> int:
    statuses = ((pod or {}).get("status") or {}).get("containerStatuses") or [{}]
    return int(statuses[0].get("restartCount", 0))
