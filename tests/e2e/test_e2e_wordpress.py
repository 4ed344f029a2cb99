"""The main job with the real catalogue: WordPress and its MariaDB, installed by one command, over TLS."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from catalogue import MINUTES, catalogue_fixture
from nodes import TestNode

SERVICES = ("mariadb", "wordpress")
pytestmark = pytest.mark.images
node = catalogue_fixture(*SERVICES)


def front_page(node: TestNode) -> str:
    return node.run("curl", "-sSf", "--max-time", "20", "http://127.0.0.1:8080/").stdout


def sql(node: TestNode, statement: str) -> str:
    return node.cli("exec", "mariadb", "--", "mariadb", "-N", "-e", statement).stdout


def test_one_command_brings_wordpress_and_its_database_over_tls(node: TestNode) -> None:
    words = ("--option", "database=mariadb", "--option", "database_transport=tls", "--timeout", "5m")
    said = node.cli("install", "wordpress", *words, seconds=MINUTES).stdout
    assert "http://127.0.0.1:8080/" in said
    assert "<title>A WordPress on Nanocloud</title>" in front_page(node)
    assert sql(node, "SELECT ssl_type FROM mysql.user WHERE user = 'wordpress'").strip() == "ANY"
    assert int(sql(node, "SHOW STATUS LIKE 'Ssl_accepts'").split()[1]) > 0
    assert "no changes" in node.cli("install", "wordpress", *words, "--dry-run", code=0).stdout
    # No capability, no new privileges, its own user: what the catalogue promises, as the kernel sees it.
    status = Path(f"/proc/{node.process_of('wordpress')}/status").read_text()
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert (facts["CapEff"], facts["CapBnd"], facts["NoNewPrivs"], facts["Seccomp"]) == ("0" * 16, "0" * 16, "1", "2")
    assert facts["Uid"].split()[0] == "33"

    # The server goes; the site stays, and the next server finds it again with the same processes.
    before = {service: node.process_of(service) for service in SERVICES}
    node.stop(signal.SIGKILL)
    assert "A WordPress on Nanocloud" in front_page(node)
    node.start()
    node.until_settled("wordpress")
    assert {service: node.process_of(service) for service in SERVICES} == before
    bindings = json.loads(node.cli("status", "wordpress", "-o", "json").stdout)["status"]["bindings"]
    assert [(b["command"], b["phase"], b["attempts"]) for b in bindings] == [("create_user", "Completed", 1)]

    node.cli("restart", "mariadb", seconds=MINUTES)
    assert "A WordPress on Nanocloud" in front_page(node)
    gone = node.cli("uninstall", "wordpress", "--dry-run", code=2).stdout
    assert "volume-1-wordpress-0: 1Gi at /var/lib/wordpress (its data is lost)" in gone
    assert "uninstall mariadb (mariadb): installed for wordpress, and nothing else uses it" in gone
    node.cli("uninstall", "wordpress", seconds=MINUTES)
    node.until("bundles", "mariadb", lambda bundle: bundle is None)
