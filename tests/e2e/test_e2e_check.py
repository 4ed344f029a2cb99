"""``dockyard check`` on a real node: images are installed with every choice, measured, and leave nothing behind."""

from __future__ import annotations

import json
from typing import Any

import pytest
from inventory import take_inventory
from nodes import TestNode
from tinyimages import DATABASE_OPTIONS

_READ = '#!/bin/sh\nsum=$(md5sum < "$2" 2> /dev/null)\n'
_WITHOUT = 'grep -v "^$1 " /data/users > /tmp/users\n'
ACCOUNTS = {
    "create_user": f'{_READ}{_WITHOUT}echo "$1 $sum" >> /tmp/users\ncat /tmp/users > /data/users\n',
    "verify_user": f'{_READ}grep -q "^$1 $sum" /data/users\n',
    "revoke_user": f"#!/bin/sh\n{_WITHOUT}cat /tmp/users > /data/users\n",
}
EXPORTS = {"options": ["host"], "bindings": list(ACCOUNTS), "owned": {"create_user": [1]}}
SERVE = "#!/bin/sh\ntouch /data/users\nexec nc -ll -p 5000 -e cat\n"
APP = {
    "database=&gooddb": ["*database_host", "&create_user $user $password"],
    "database=&leakydb": ["*database_host", "&create_user $user $password"],
    "database=&otherdb": ["*database_host"],
    "mode=good": [],
    "mode=bad": [],
    "user": ["!bundle"],
    "password": ["!rand 24 alnum"],
    "env_MODE": ["*mode", "$mode"],
    "port_1": ["8080->80"],
}
APP_FILES = {
    "/serve.sh": "#!/bin/sh\nexec sleep 1000000\n",
    "/usr/lib/nanocloud/ready.sh": '#!/bin/sh\n[ "$MODE" = good ] || { echo mode is $MODE; exit 1; }\n',
}


@pytest.fixture(scope="module")
def images(node: TestNode) -> TestNode:
    """The node, with two databases, of which one forgets to revoke, and an application that may use either."""
    for name, revoke in (("gooddb", ACCOUNTS["revoke_user"]), ("leakydb", "#!/bin/sh\nexit 0\n")):
        commands = {**ACCOUNTS, "revoke_user": revoke}
        node.layout.add(
            name,
            command=["/serve.sh"],
            files={
                "/serve.sh": SERVE,
                "/usr/lib/nanocloud/ready.sh": "#!/bin/sh\ntest -e /data/users\n",
                **{f"/usr/lib/nanocloud/bindings/{command}": text for command, text in commands.items()},
            },
            labels={"io.nanocloud.options": DATABASE_OPTIONS, "io.nanocloud.exports": EXPORTS},
            user="65534:65534",
        )
    labels = {"io.nanocloud.options": APP}
    node.layout.add("checked", command=["/serve.sh"], files=APP_FILES, labels=labels, user="65534:65534")
    node.cli("install", "gooddb")  # what the first service of a node makes, stays
    node.cli("uninstall", "gooddb")
    return node


def check(node: TestNode, *words: str, code: int | None = 0) -> dict[str, Any]:
    done = node.cli("dockyard", "check", *words, "-o", "json", code=code, seconds=240)
    (report,) = json.loads(done.stdout)
    found: dict[str, Any] = report
    return found


def rules(report: dict[str, Any]) -> list[tuple[str, str]]:
    return [(finding["rule"], finding["where"]) for finding in report["findings"]]


def test_a_service_is_installed_measured_and_gone(images: TestNode) -> None:
    before = take_inventory(images)
    report = check(images, "gooddb", "--level", "silver")
    assert rules(report) == [("volume-path", "/data")]
    assert (report["level"], report["installed"]) == ("silver", True)
    (measured,) = report["measured"]
    assert 0 < measured["readySeconds"] < 60
    assert 0 < measured["idleBytes"] < 64 * 1024 * 1024
    assert take_inventory(images) == before
    assert not [ns for ns in images.request("GET", "/api/v1/namespaces")["items"] if "check" in ns["metadata"]["name"]]


def test_every_choice_is_tried_and_what_fails_is_told_with_it(images: TestNode) -> None:
    before = take_inventory(images)
    report = check(images, images.layout.reference("checked"), "--timeout", "20", code=1)
    assert report["level"] == "refused"
    assert [measured["options"] for measured in report["measured"]] == ["defaults", "database=leakydb", "mode=bad"]
    assert rules(report) == [
        ("account-left", "database=leakydb"),
        ("not-tried", "database=otherdb"),
        ("install", "mode=bad"),
    ]
    assert "mode is bad" in report["findings"][2]["message"]
    assert take_inventory(images) == before


def test_a_table_says_what_to_do_and_the_level_decides_the_exit(images: TestNode) -> None:
    words = ("dockyard", "check", "--lint-only", "gooddb")
    shown = images.cli(*words, "--level", "silver").stdout
    assert "make the folder in the Containerfile and give it to USER" in shown
    assert shown.endswith("gooddb: silver at best: it was not installed\n")
    images.cli(*words, "--level", "gold", code=1)
    assert "allowed: bronze, silver, gold" in images.cli(*words, "--level", "platinum", code=2).stderr
    assert "KEY=VALUE" in images.cli(*words, "--option", "x", code=2).stderr
    assert "no service 'goodbd'; did you mean gooddb?" in images.cli("dockyard", "check", "goodbd", code=1).stderr
