"""Synapse as its users have it: a Matrix client over HTTPS; its sessions to PostgreSQL and Redis are verified TLS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from catalogue import MINUTES, catalogue_fixture
from inside import eventually, inside
from nodes import TestNode

pytestmark = pytest.mark.images
node = catalogue_fixture("postgresql", "redis", "synapse")

PYTHON = "/opt/synapse/bin/python3"
SYNAPSE = 979
OTHER_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
CLIENT = "/_matrix/client/v3"


@pytest.fixture(scope="module", autouse=True)
def installed(node: TestNode) -> None:
    words = ("--option", "cache=redis", "--timeout", "5m")
    node.cli("install", "synapse", *words, seconds=MINUTES)


class Matrix:
    """A client by curl, which knows the node's authority and no other."""

    def __init__(self, node: TestNode) -> None:
        self._node, self.token = node, ""
        self._authority = node.folder / "ca.crt"
        self._authority.write_text(node.cli("exec", "synapse", "--", "cat", "/run/nanocloud/tls/ca.crt").stdout)

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        name = "synapse.default.svc:8448"
        words = ["curl", "-sS", "--max-time", "30", "-X", method, "--cacert", str(self._authority)]
        words += ["--resolve", f"{name}:127.0.0.1"]
        if self.token:
            words += ["-H", f"Authorization: Bearer {self.token}"]
        if body is not None:
            words += ["-H", "Content-Type: application/json", "--data-binary", json.dumps(body)]
        answer: dict[str, Any] = json.loads(self._node.run(*words, f"https://{name}{path}").stdout)
        return answer

    def log_in(self, user: str, password: str) -> dict[str, Any]:
        who = {"type": "m.id.user", "user": user}
        answer = self.ask(
            "POST", f"{CLIENT}/login", {"type": "m.login.password", "identifier": who, "password": password}
        )
        self.token = answer.get("access_token", "")
        return answer


def clients_of_redis(node: TestNode) -> list[dict[str, str]]:
    ask = "REDISCLI_AUTH=$REDIS_PASSWORD exec redis-cli -s /tmp/redis.sock CLIENT LIST"
    lines = node.cli("exec", "redis", "--", "sh", "-c", ask).stdout.splitlines()
    found = [dict(word.split("=", 1) for word in line.split()) for line in lines if line]
    return [client for client in found if client["user"] == "synapse"]


def test_people_register_log_in_and_write_to_each_other_and_all_is_kept(node: TestNode) -> None:
    secrets = node.env_of("synapse")
    admin, alice = Matrix(node), Matrix(node)
    assert admin.log_in("admin", "wrong")["errcode"] == "M_FORBIDDEN"
    assert admin.log_in("admin", secrets["SYNAPSE_ADMIN_PASSWORD"])["user_id"] == "@admin:synapse"
    account = "/_synapse/admin/v2/users/@alice:synapse"
    assert admin.ask("PUT", account, {"password": "a long password"})["name"] == "@alice:synapse"
    assert alice.ask("PUT", account, {"password": "x"})["errcode"] == "M_MISSING_TOKEN"
    assert alice.log_in("alice", "a long password")["user_id"] == "@alice:synapse"

    room = quote(alice.ask("POST", f"{CLIENT}/createRoom", {"name": "Küche", "invite": ["@admin:synapse"]})["room_id"])
    admin.ask("POST", f"{CLIENT}/join/{room}", {})
    sent = alice.ask("PUT", f"{CLIENT}/rooms/{room}/send/m.room.message/1", {"msgtype": "m.text", "body": "Hällo 🚀"})

    def read() -> dict[str, Any]:
        event = admin.ask("GET", f"{CLIENT}/rooms/{room}/event/{quote(sent['event_id'])}")
        return {"sender": event["sender"], "body": event["content"]["body"]}

    assert read() == {"sender": "@alice:synapse", "body": "Hällo 🚀"}
    keys = admin.ask("GET", "/_matrix/key/v2/server")["verify_keys"]
    for service in ("postgresql", "redis", "synapse"):
        node.cli("restart", service, seconds=MINUTES)
    assert read() == {"sender": "@alice:synapse", "body": "Hällo 🚀"}
    assert admin.ask("GET", "/_matrix/key/v2/server")["verify_keys"] == keys, "the key is on the volume"
    # Nobody registers unasked.
    assert (
        Matrix(node).ask("POST", f"{CLIENT}/register", {"username": "eve"})["error"] == "Registration has been disabled"
    )

    log = node.cli("logs", "synapse").stdout
    words = ("DB_PASSWORD", "REDIS_PASSWORD", "ADMIN_PASSWORD", "REGISTRATION_SECRET", "MACAROON_SECRET", "FORM_SECRET")
    assert not [word for word in words if secrets[f"SYNAPSE_{word}"] in log]


def test_it_runs_without_any_right(node: TestNode) -> None:
    status = Path(f"/proc/{node.process_of('synapse')}/status").read_text()
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert (facts["CapEff"], facts["CapBnd"], facts["NoNewPrivs"], facts["Seccomp"]) == ("0" * 16, "0" * 16, "1", "2")
    assert facts["Uid"].split() == [str(SYNAPSE)] * 4
    listening = node.cli("exec", "synapse", "--", "cat", "/proc/net/tcp", "/proc/net/tcp6").stdout
    ports = {int(line.split()[1].rpartition(":")[2], 16) for line in listening.splitlines() if " 0A " in line}
    assert ports == {8448}


def test_sessions_to_postgresql_are_encrypted_and_only_the_nodes_authority_will_do(node: TestNode) -> None:
    about = "SELECT DISTINCT ssl, version FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'synapse'"
    assert node.cli("exec", "postgresql", "--", "psql", "-XAtc", about).stdout == "t|TLSv1.3\n"
    # Synapse's own arguments, but for one of them.
    script = (
        "import json, sys, psycopg2\n"
        "arguments = json.load(open('/dev/shm/synapse.yaml'))['database']['args'] | json.loads(sys.argv[1])\n"
        "arguments = {k: v for k, v in arguments.items() if not k.startswith('cp_')}\n"
        "psycopg2.connect(**arguments)\n"
    )
    address = node.pod("postgresql")["status"]["podIP"]
    for change, message in (
        ({}, ""),
        ({"sslrootcert": OTHER_AUTHORITIES}, "certificate verify failed"),
        ({"host": "elsewhere.example", "hostaddr": address}, "does not match host name"),
        ({"sslmode": "disable"}, "no encryption"),
    ):
        done = inside(node, "synapse", PYTHON, "-c", script, json.dumps(change), user=SYNAPSE, code=None)
        assert (done.returncode == 0) == (not message), done
        assert message in done.stderr


def test_sessions_to_redis_are_its_own_users_and_only_the_nodes_authority_will_do(node: TestNode) -> None:
    eventually(lambda: len(clients_of_redis(node)) >= 2)
    connections = clients_of_redis(node)
    assert {client["laddr"].rpartition(":")[2] for client in connections} == {"6380"}, "the port for TLS"
    assert max(int(client["sub"]) for client in connections) > 0, "it listens for what other processes publish"
    # What the server connects with, in a process of its own; prints how the handshake ended.
    script = (
        "import sys, types\n"
        "from importlib.machinery import SourceFileLoader\n"
        "from twisted.internet import protocol, reactor\n"
        "server = SourceFileLoader('server', '/usr/lib/nanocloud/homeserver').load_module()\n"
        "class Ping(protocol.Protocol):\n"
        "    def connectionMade(self): self.transport.write(b'PING\\r\\n')\n"
        "    def dataReceived(self, data): print('answered', data); reactor.stop()\n"
        "    def connectionLost(self, reason): print('lost', reason.value); reactor.running and reactor.stop()\n"
        "factory = protocol.ClientFactory.forProtocol(Ping)\n"
        "config = types.SimpleNamespace(redis_host=sys.argv[1], redis_ca_file=sys.argv[2])\n"
        "reactor.connectSSL(sys.argv[3], 6380, factory, server.redis.ClientContextFactory(config))\n"
        "reactor.run()\n"
    )
    ca, name, address = "/run/nanocloud/tls/ca.crt", "redis.default.svc", node.pod("redis")["status"]["podIP"]
    for authority, expected, answer in (
        (ca, name, "answered b'-NOAUTH"),
        (OTHER_AUTHORITIES, name, "certificate verify failed"),
        (ca, "elsewhere.example", "VerificationError"),
    ):
        words = (PYTHON, "-W", "ignore", "-c", script, expected, authority, address)
        assert answer in inside(node, "synapse", *words, user=SYNAPSE).stdout
