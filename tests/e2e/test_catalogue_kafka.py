"""Kafka as its users have it: dependants with accounts of their own, and a public client that uses these accounts."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme
from catalogue import MINUTES, catalogue_fixture
from nodes import TestNode
from tinyimages import Layout

pytestmark = pytest.mark.images
node = catalogue_fixture("kafka")

APP_OPTIONS = {
    "events=&kafka": ["*events_host", "*events_port", "*events_tls_port", "&create_user $user $password $transport"],
    "transport=tls": [],
    "transport=plain": [],
    "user": ["!bundle"],
    "password": ["!rand 24 alnum"],
    "env_HOST": ["*events_host", "$events_host"],
    "env_PLAIN": ["*events_port", "$events_port"],
    "env_TLS": ["*events_tls_port", "$events_tls_port"],
    "env_USER_NAME": ["*user", "$user"],
    "env_PASSWORD": ["*password", "$password"],
}
# In the node's network, with the names that pods have.
WITH_NAMES = 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'
PROGRAM = Path(__file__).with_name("kafka_client.py")


class Client:
    """A client with the account of a dependant; ``settings`` are librdkafka's."""

    def __init__(self, node: TestNode, env: dict[str, str], *, tls: bool = True) -> None:
        self._node = node
        self.settings = {
            "bootstrap.servers": f"{env['HOST']}:{env['TLS' if tls else 'PLAIN']}",
            "security.protocol": "SASL_SSL" if tls else "SASL_PLAINTEXT",
            "sasl.mechanism": "SCRAM-SHA-512" if tls else "SCRAM-SHA-256",
            "sasl.username": env["USER_NAME"],
            "sasl.password": env["PASSWORD"],
        }
        if tls:
            self.settings["ssl.ca.location"] = str(node.state_dir / "secure_assets" / "ca.crt")

    def _ask(self, topic: str, **what: Any) -> dict[str, list[str]]:
        names = self._node.home / "resolv.conf"
        names.write_text(self._node.cli("exec", "kafka", "--", "cat", "/etc/resolv.conf").stdout)
        request = json.dumps({"settings": self.settings, "topic": topic, **what})
        within = ("unshare", "--mount", "sh", "-c", WITH_NAMES, "sh", names)
        answer: dict[str, list[str]] = json.loads(
            self._node.run(*within, sys.executable, PROGRAM, stdin=request).stdout
        )
        return answer

    def write(self, topic: str, *messages: str) -> None:
        answer = self._ask(topic, write=messages)
        assert not answer["errors"], answer

    def read(self, topic: str, group: str | None = None) -> list[str]:
        answer = self._ask(topic, read=True, group=group)
        assert not answer["errors"], answer
        return answer["messages"]

    def refused(self, topic: str, group: str | None = None) -> str:
        """What a client is told that reads and gets nothing."""
        answer = self._ask(topic, read=True, group=group)
        assert answer["errors"], answer
        assert not answer["messages"]
        return " ".join(answer["errors"])


def client(node: TestNode, service: str, *, tls: bool = True) -> Client:
    return Client(node, node.env_of(service), tls=tls)


@pytest.fixture(scope="module")
def dependants(node: TestNode) -> TestNode:
    """Kafka, installed for ``shop``, which may come over TLS only, and ``till``, which may come without."""
    apps = Layout(node.folder / "apps")
    for app, transport in (("shop", "tls"), ("till", "plain")):
        image = apps.add(app, command=["sleep", "1000000"], labels={"io.nanocloud.options": APP_OPTIONS})
        node.cli("install", app, "--image", image, "--option", f"transport={transport}", seconds=MINUTES)
    return node


def test_dependants_write_and_read_topics_of_their_own_only(dependants: TestNode) -> None:
    shop, till = client(dependants, "shop"), client(dependants, "till", tls=False)
    shop.write("shop.orders", "one", "two")
    assert shop.read("shop.orders") == ["one", "two"]
    till.write("till", "three")
    assert till.read("till") == ["three"]
    assert "authorization failed" in shop.refused("till")
    assert "authorization failed" in till.refused("shop.orders")


def test_group_of_a_dependant_goes_on_where_it_was(dependants: TestNode) -> None:
    shop = client(dependants, "shop")
    shop.write("shop.jobs", "first")
    assert shop.read("shop.jobs", "shop.workers") == ["first"]
    shop.write("shop.jobs", "second")
    assert shop.read("shop.jobs", "shop.workers") == ["second"]
    assert "authorization failed" in shop.refused("shop.jobs", "till.workers")


def test_certificate_is_verified_against_the_nodes_authority(dependants: TestNode, tmp_path: Path) -> None:
    shop = client(dependants, "shop")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    shop.settings["ssl.ca.location"] = str(tmp_path / "other.pem")
    assert "certificate verify failed" in shop.refused("shop.orders")
    del shop.settings["ssl.ca.location"]
    shop.settings["security.protocol"] = "SASL_PLAINTEXT"
    assert shop.refused("shop.orders")


def test_nobody_comes_in_without_an_account_of_that_listener(dependants: TestNode) -> None:
    assert "invalid credentials" in client(dependants, "shop", tls=False).refused("shop.orders")
    assert client(dependants, "till", tls=True).read("till") == ["three"]
    for tls in (True, False):
        till = client(dependants, "till", tls=tls)
        till.settings["sasl.password"] = "guessed"
        assert "invalid credentials" in till.refused("till")
        till.settings = {k: v for k, v in till.settings.items() if not k.startswith("sasl.")}
        till.settings["security.protocol"] = "SSL" if tls else "PLAINTEXT"
        assert till.refused("till")


def test_messages_and_accounts_survive_restarts_and_crashes(dependants: TestNode) -> None:
    shop = client(dependants, "shop")
    shop.write("shop.kept", "before")
    dependants.cli("restart", "kafka", seconds=MINUTES)
    shop.write("shop.kept", "between")
    broker = dependants.process_of("kafka")
    os.kill(broker, signal.SIGKILL)
    dependants.until("pods", "kafka-0", started_again, seconds=MINUTES)
    assert dependants.process_of("kafka") != broker
    assert shop.read("shop.kept") == ["before", "between"]


def started_again(pod: dict[str, Any] | None) -> bool:
    (status,) = ((pod or {}).get("status") or {}).get("containerStatuses") or [{}]
    return bool(status.get("ready")) and status.get("restartCount", 0) > 0


def test_bindings_verify_and_revoke_one_account(dependants: TestNode) -> None:
    def bind(command: str, *words: str, code: int = 0) -> str:
        path = f"/usr/lib/nanocloud/bindings/{command}"
        return dependants.cli("exec", "-i", "kafka", "--", path, *words, stdin="s e\"c'r\\et\n ", code=code).stderr

    words = ("guest", "/dev/stdin", "tls", "shared.")
    assert "invalid credentials" in bind("verify_user", *words, code=1)
    for _ in range(2):
        bind("create_user", *words)
    bind("verify_user", *words)
    assert "invalid credentials" in bind("verify_user", "guest", "/dev/stdin", "plain", "shared.", code=1)
    assert "Authorization failed" in bind("verify_user", "guest", "/dev/stdin", "tls", "shop.", code=1)
    for _ in range(2):
        bind("revoke_user", "guest", "/dev/null", "tls", "shared.")
    assert "invalid credentials" in bind("verify_user", *words, code=1)
    for name in ("nanocloud", "a b"):
        assert f"user '{name}'" in bind("create_user", name, "/dev/stdin", code=64)


def test_uninstalling_a_dependant_takes_its_account_only(dependants: TestNode) -> None:
    shop, till = client(dependants, "shop"), client(dependants, "till", tls=False)
    dependants.cli("uninstall", "till", seconds=MINUTES)
    assert "invalid credentials" in till.refused("till")
    assert shop.read("shop.orders") == ["one", "two"]
