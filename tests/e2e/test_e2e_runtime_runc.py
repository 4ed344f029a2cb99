"""The main job on a runtime that is not ours: runc, from a package that a node's operator would install by pip."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # the modules of all tests

from catalogue import MINUTES, catalogue_node
from environments import UV, installed, plugins
from inventory import take_inventory
from nodes import TestNode
from runtime_runc import NODE, lacking_programs

SERVICES = ("mariadb", "wordpress")
pytestmark = [
    pytest.mark.images,
    pytest.mark.skipif(UV is None, reason="needs uv"),
    pytest.mark.skipif(bool(lacking_programs()), reason=f"needs {', '.join(lacking_programs())}"),
]


@pytest.fixture(scope="module")
def node(nodes_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestNode]:
    """A node of an environment of its own, in which our runtime is installed, too; the configuration chooses."""
    environment = tmp_path_factory.mktemp("runc")
    nanocloud = installed(environment / "venv", *NODE)
    assert plugins(nanocloud, environment)["runtime-runc"] == "active"
    chosen = '[node]\nruntime = "runc"\n'
    with catalogue_node(nodes_folder, *SERVICES, config=chosen, nanocloud=nanocloud, runtime="runtime-runc") as made:
        yield made


def front_page(node: TestNode) -> str:
    return node.run("curl", "-sSf", "--max-time", "20", "http://127.0.0.1:8080/").stdout


def test_wordpress_and_its_database_live_on_runc(node: TestNode) -> None:
    before = take_inventory(node)
    words = ("--option", "database=mariadb", "--option", "database_transport=tls", "--timeout", "5m")
    node.cli("install", "wordpress", *words, seconds=MINUTES)
    assert "A WordPress on Nanocloud" in front_page(node)
    processes = {service: node.process_of(service) for service in SERVICES}
    for process in processes.values():
        monitor = _parent(process)
        assert (Path("/proc") / str(monitor) / "comm").read_text() == "conmon\n"
        assert f"--runtime-arg=--root={node.run_dir}/runtime-runc/runc" in _command(monitor)
    assert confinement(processes["wordpress"]) == ("0" * 16, "0" * 16, "1", "2", "33")

    # Exec and logs.
    query = "SELECT ssl_type FROM mysql.user WHERE user = 'wordpress'"
    assert node.cli("exec", "mariadb", "--", "mariadb", "-N", "-e", query).stdout.strip() == "ANY"
    assert node.cli("exec", "-i", "wordpress", "--", "cat", stdin="there and back").stdout == "there and back"
    assert node.cli("exec", "wordpress", "--", "no-such-program", code=127).stderr
    assert "ready for connections" in node.cli("logs", "mariadb").stdout

    # The server is killed; the site stays, and the next server finds the same processes.
    node.stop(signal.SIGKILL)
    assert "A WordPress on Nanocloud" in front_page(node)
    node.start()
    node.until_settled("wordpress")
    assert {service: node.process_of(service) for service in SERVICES} == processes
    assert "A WordPress on Nanocloud" in front_page(node)

    node.cli("restart", "mariadb", seconds=MINUTES)
    assert "A WordPress on Nanocloud" in front_page(node)
    assert node.process_of("mariadb") != processes["mariadb"]

    node.cli("uninstall", "wordpress", seconds=MINUTES)
    node.until("bundles", "mariadb", lambda bundle: bundle is None)
    after = take_inventory(node)
    # What the first container needed stays for the next one, and goes with the node.
    assert {Path(group).name for group in after.pop("cgroups")} <= {node.cgroup, "_monitors"}
    assert before.pop("cgroups") == []
    after["files"].remove("s/logs/pods")
    assert after == before


def confinement(process: int) -> tuple[str, ...]:
    """Capabilities, effective and bounding; no-new-privileges, seccomp, user: as the kernel sees them."""
    lines = (Path("/proc") / str(process) / "status").read_text().splitlines()
    facts = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return (*(facts[name] for name in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp")), facts["Uid"].split()[0])


def _parent(process: int) -> int:
    done = subprocess.run(["ps", "-o", "ppid=", "-p", str(process)], capture_output=True, text=True, check=True)
    return int(done.stdout)


def _command(process: int) -> str:
    return (Path("/proc") / str(process) / "cmdline").read_text().replace("\0", " ")
