"""A real database while server, commands and container are killed: one account with one password, or none.

The simulation tries every step (``core/tests/controllers/test_binding_crashes.py``); here real processes die, at
moments spread over the time that a binding takes. NANOCLOUD_TEST_POINTS asks for more of them.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from catalogue import MINUTES, catalogue_fixture
from nodes import TestNode, is_gone, is_ready
from test_catalogue_sharing import SITE

from nanocloud.client.api import bundles_path

pytestmark = pytest.mark.images
node = catalogue_fixture("mariadb")
POINTS = int(os.environ.get("NANOCLOUD_TEST_POINTS", "8"))
INSTALL_SECONDS, REMOVE_SECONDS = 0.5, 0.3
_spread = random.Random(3)


def moments(whole: float, points: int) -> list[float]:
    return [round(whole * (step + _spread.random()) / points, 3) for step in range(points)]


@pytest.fixture(scope="module")
def database(node: TestNode) -> TestNode:
    node.layout.add("site", command=["/bin/sleep", "100000"], labels={"io.nanocloud.options": SITE})
    node.cli("install", "mariadb", seconds=MINUTES)
    return node


def begin(node: TestNode) -> None:
    node.create("site", {"options": {"database_transport": "tls"}})


def kill_server(node: TestNode, seconds: float) -> None:
    assert node.server is not None
    assert node.server.runs_for(seconds), node.server.log
    node.stop(signal.SIGKILL)
    node.start()


def kill_commands(node: TestNode, first: int) -> None:
    """Kill what runs as a binding command does, as soon as it is seen; ``first`` is mariadb's own process."""
    folder = next(
        path
        for path in (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup"))
        if list(path.glob(f"{node.cgroup}/*/cgroup.procs"))
    )
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for file in folder.glob(f"{node.cgroup}/*/cgroup.procs"):
            with contextlib.suppress(OSError):
                pids = [int(line) for line in file.read_text().split()]
                if first in pids and (found := [pid for pid in pids if pid != first and is_command(pid)]):
                    for pid in found:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                    return
    raise AssertionError("no command was seen")


def restarts(pod: Mapping[str, Any] | None) -> int:
    statuses = ((pod or {}).get("status") or {}).get("containerStatuses") or [{}]
    return int(statuses[0].get("restartCount", 0))


def is_command(pid: int) -> bool:
    try:
        return b"/bindings/" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def check(node: TestNode) -> None:
    bundle = node.until_settled("site")
    assert is_ready(bundle), bundle["status"]
    (binding,) = bundle["status"]["bindings"]
    assert (binding["command"], binding["phase"], binding["exitCode"]) == ("create_user", "Completed", 0)
    assert accounts(node) == ["site"]
    script = (
        'MYSQL_PWD="$1" exec mariadb -h localhost --protocol=tcp --ssl-ca=/run/nanocloud/tls/ca.crt -u site -N -e "$2"'
    )
    password = node.env_of("site")["DB_PASSWORD"]
    query = "SHOW STATUS LIKE 'Ssl_cipher'"
    assert "TLS" in node.cli("exec", "mariadb", "--", "sh", "-c", script, "sh", password, query).stdout


def accounts(node: TestNode) -> list[str]:
    statement = "SELECT user FROM mysql.user WHERE host = '%'"
    return node.cli("exec", "mariadb", "--", "mariadb", "-N", "-e", statement).stdout.split()


def remove(node: TestNode) -> None:
    if node.get("bundles", "site") is not None:
        node.request("DELETE", bundles_path("default", "site"))
        node.until("bundles", "site", is_gone)
    for binding in node.request("GET", "/apis/nanocloud.io/v1/namespaces/default/bindings")["items"]:
        node.until("bindings", binding["metadata"]["name"], is_gone)
    assert accounts(node) == []


@pytest.mark.parametrize("seconds", moments(INSTALL_SECONDS, POINTS))
def test_the_server_is_killed_while_a_service_is_bound(database: TestNode, seconds: float) -> None:
    begin(database)
    kill_server(database, seconds)
    check(database)
    remove(database)


@pytest.mark.parametrize("seconds", moments(REMOVE_SECONDS, POINTS // 2))
def test_the_server_is_killed_while_access_is_revoked(database: TestNode, seconds: float) -> None:
    begin(database)
    check(database)
    database.request("DELETE", bundles_path("default", "site"))
    kill_server(database, seconds)
    database.until("bundles", "site", is_gone)
    remove(database)


@pytest.mark.parametrize("number", range(POINTS // 4))
def test_the_command_is_killed(database: TestNode, number: int) -> None:
    first = database.process_of("mariadb")
    begin(database)
    kill_commands(database, first)
    check(database)
    remove(database)


@pytest.mark.parametrize("seconds", moments(INSTALL_SECONDS, POINTS // 4))
def test_the_container_is_killed(database: TestNode, seconds: float) -> None:
    first, before = database.process_of("mariadb"), restarts(database.pod("mariadb"))
    begin(database)
    assert database.server is not None
    assert database.server.runs_for(seconds)
    os.kill(first, signal.SIGKILL)
    database.until("pods", "mariadb-0", lambda pod: is_ready(pod) and restarts(pod) > before, MINUTES)
    database.until("bundles", "mariadb", is_ready, MINUTES)
    check(database)
    remove(database)
