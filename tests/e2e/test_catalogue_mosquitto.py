"""Mosquitto as its dependants have it: an account each, with topics of its own, over TLS."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import takewhile
from typing import Any

import pytest
from catalogue import MINUTES, catalogue_fixture
from inside import AUTHORITY, SECRET, environment_of, foreign_authority, inside, running, tls_version
from nodes import TestNode, is_ready
from tinyimages import Layout

pytestmark = pytest.mark.images
node = catalogue_fixture("mosquitto")

HOST = "mosquitto.default.svc"
TLS = ("-p", "8883", "--cafile", AUTHORITY)
CLIENT_OPTIONS = {
    "broker=&mosquitto": ["*broker_host", "*broker_tls_port", "&create_user $user $password $prefix"],
    "user": ["!bundle"],
    "prefix": ["!bundle"],
    "password": ["!rand 32 alnum"],
    "env_PASSWORD": ["*password", "$password"],
}


@pytest.fixture(scope="module", autouse=True)
def clients(node: TestNode) -> None:
    image = Layout(node.folder / "clients").add(
        "client", command=["sleep", "1000000"], labels={"io.nanocloud.options": CLIENT_OPTIONS}, user="1000:1000"
    )
    for bundle in ("meter", "lamp"):
        node.cli("install", bundle, "--image", image, seconds=MINUTES)


def words(node: TestNode, program: str, user: str, password: str, security: tuple[str, ...]) -> tuple[str, ...]:
    return (program, "-h", HOST, *security, "-u", user, "-P", password or environment_of(node, user)["PASSWORD"])


def send(
    node: TestNode,
    user: str,
    topic: str,
    message: str,
    *more: str,
    password: str = "",
    security: tuple[str, ...] = TLS,
    network_of: str = "meter",
    code: int | None = 0,
) -> str:
    command = (
        *words(node, "mosquitto_pub", user, password, security),
        "-q",
        "1",
        "-V",
        "5",
        "-t",
        topic,
        "-m",
        message,
    )
    done = inside(node, "mosquitto", *command, *more, network_of=network_of, code=code)
    return done.stdout + done.stderr


@contextmanager
def listening(
    node: TestNode,
    user: str,
    *topics: str,
    password: str = "",
    security: tuple[str, ...] = TLS,
    more: tuple[str, ...] = (),
) -> Iterator[subprocess.Popen[str]]:
    """A subscriber; the block begins when the broker has answered."""
    command = (*words(node, "mosquitto_sub", user, password, security), *more, "-q", "1", "-d", "-v", "-W", "60")
    for topic in topics:
        command += ("-t", topic)
    with running(node, "mosquitto", "stdbuf", "-oL", *command, network_of="lamp") as process:
        next_line(process, "Subscribed")
        yield process


def next_line(process: subprocess.Popen[str], begin: str) -> str:
    assert process.stdout
    line = next((line for line in process.stdout if line.startswith(begin)), "")
    assert line, f"it ended without {begin}"
    return line.strip()


def test_dependants_send_and_receive_over_tls(node: TestNode) -> None:
    with listening(node, "meter", "meter/#") as subscriber:
        send(node, "meter", "meter/kitchen/power", "42")
        assert next_line(subscriber, "meter/") == "meter/kitchen/power 42"


def test_tls_is_encrypted_and_the_broker_is_known(node: TestNode) -> None:
    assert tls_version(node, "mosquitto", 8883) == "TLSv1.3"
    foreign = ("-p", "8883", "--cafile", foreign_authority(node, "mosquitto"))
    assert "TLS error" in send(node, "meter", "meter/a", "1", security=foreign, code=None)
    # Another name of the same broker, which is not in its certificate.
    address = node.pod("mosquitto")["status"]["podIP"]
    assert "TLS error" in send(node, "meter", "meter/a", "1", "-h", address, code=None)
    assert send(node, "meter", "meter/a", "1", code=0) == ""
    # In the clear, the TLS port answers to nobody.
    with node.entered(), socket.create_connection((address, 8883), timeout=30) as clear:
        clear.sendall(b"\x10\x0c\x00\x04MQTT\x04\x02\x00<\x00\x00")
        with suppress(ConnectionResetError):
            assert clear.recv(1) != b"\x20"  # CONNACK


def test_the_port_in_the_clear_is_closed_where_the_user_says_so(node: TestNode) -> None:
    node.cli(
        "install", "closed", "--image", f"oci:{node.layout.folder}:mosquitto", "-o", "transport=tls", seconds=MINUTES
    )
    address = node.pod("closed")["status"]["podIP"]
    with node.entered(), pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, 1883), timeout=30)
    inside(node, "closed", "create_user", "lamp", SECRET, secret=b"x")
    inside(node, "closed", "verify_user", "lamp", SECRET, secret=b"x")
    assert tls_version(node, "closed", 8883) == "TLSv1.3"


def test_who_has_no_account_is_refused(node: TestNode) -> None:
    for user, password in (("meter", "wrong"), ("nobody", "x"), ("nanocloud", "x")):
        assert "not authorized" in send(node, user, "meter/a", "1", password=password, code=None).lower()
    anonymous = ("mosquitto_pub", "-h", HOST, *TLS, "-t", "meter/a", "-m", "1")
    assert "not authorised" in inside(node, "mosquitto", *anonymous, network_of="meter", code=None).stderr


def test_a_dependant_reaches_no_topic_of_another(node: TestNode) -> None:
    def answer(topic: str) -> int:
        command = (*words(node, "mosquitto_sub", "meter", "", TLS), "-V", "5", "-d", "-E", "-t", topic)
        said = inside(node, "mosquitto", *command, network_of="meter", code=None).stdout
        return int(said.split("Subscribed (mid: 1): ")[1].split()[0])

    assert answer("meter/#") == 0
    for topic in ("lamp/#", "#", "+/on", "$SYS/#", "$CONTROL/#", "$share/g/lamp/#", "meterx/a", "meterx"):
        assert answer(topic) == 135, topic
    for topic in ("lamp/on", "$CONTROL/dynamic-security/v1"):
        assert "Not authorized" in send(node, "meter", topic, "{}", code=None)


def test_any_printable_password_works_and_is_written_nowhere(node: TestNode) -> None:
    for password in (b"simple", b"a'b\"c\\d`e$f;g h -- #%s", "schl\u00fcssel \u20ac".encode(), b"x" * 256):
        for _ in range(2):
            assert inside(node, "mosquitto", "create_user", "till", SECRET, "till/", secret=password).stdout == ""
        inside(node, "mosquitto", "verify_user", "till", SECRET, "till/", secret=password)
        inside(node, "mosquitto", "verify_user", "till", SECRET, "till/", secret=password + b"!", code=1)
    inside(node, "mosquitto", "verify_user", "till", SECRET, "shop", secret=password, code=1)
    inside(node, "mosquitto", "verify_user", "tilly", SECRET, secret=password, code=1)
    for place in ("/var/lib/mosquitto", "/dev/shm", "/tmp"):
        assert inside(node, "mosquitto", "grep", "-rl", "xxxxxxxx", place, user=974, code=1).stdout == ""
    log = node.cli("logs", "mosquitto").stdout
    assert "mosquitto version 2.0" in log
    assert "xxxxxxxx" not in log


def test_without_a_prefix_all_topics_are_open_but_the_brokers_own(node: TestNode) -> None:
    inside(node, "mosquitto", "create_user", "hub", SECRET, secret=b"x")
    inside(node, "mosquitto", "verify_user", "hub", SECRET, secret=b"x")
    with listening(node, "hub", "#", password="x") as subscriber:
        send(node, "meter", "meter/a", "1")
        assert next_line(subscriber, "meter/") == "meter/a 1"
    assert "Not authorized" in send(node, "hub", "$CONTROL/dynamic-security/v1", "{}", password="x", code=None)
    # And the other way round: an account is brought to what it shall be.
    inside(node, "mosquitto", "create_user", "hub", SECRET, "hub", secret=b"x")
    assert "Not authorized" in send(node, "hub", "meter/a", "1", password="x", code=None)


def test_revoking_ends_sessions_and_keeps_messages(node: TestNode) -> None:
    inside(node, "mosquitto", "revoke_user", "notes", "/dev/null", "notes")  # nothing is there
    inside(node, "mosquitto", "create_user", "notes", SECRET, "notes", secret=b"x")
    send(node, "notes", "notes/kept", "5", "-r", password="x")
    with listening(node, "notes", "notes/#", password="x") as subscriber:
        assert next_line(subscriber, "notes/") == "notes/kept 5"
        for _ in range(2):
            inside(node, "mosquitto", "revoke_user", "notes", "/dev/null", "notes")
        next_line(subscriber, "Connection error: Connection Refused: not authorised.")
    assert "Not authorized" in send(node, "notes", "notes/a", "1", password="x", code=None)
    inside(node, "mosquitto", "create_user", "notes", SECRET, "notes", secret=b"y")
    with listening(node, "notes", "notes/#", password="y") as subscriber:
        assert next_line(subscriber, "notes/") == "notes/kept 5"
    send(node, "meter", "meter/a", "1")  # the other dependants never noticed


def test_an_account_does_not_take_over_the_session_of_another(node: TestNode) -> None:
    """A client's name is chosen by the client, so that two accounts can choose the same."""
    same = ("-i", "same", "-c")
    with listening(node, "lamp", "lamp/#", more=same):
        pass
    send(node, "lamp", "lamp/secret", "1")
    # What came while it was away waits for the one who subscribed to it ...
    again = (*words(node, "mosquitto_sub", "lamp", "", TLS), *same, "-q", "1", "-t", "lamp/#", "-C", "1", "-W", "30")
    assert inside(node, "mosquitto", *again, network_of="lamp").stdout == "1\n"
    send(node, "lamp", "lamp/secret", "2")
    # ... and for nobody else.
    other = (*words(node, "mosquitto_sub", "meter", "", TLS), *same, "-q", "1", "-t", "meter/#", "-v", "-d")
    with running(node, "mosquitto", "stdbuf", "-oL", *other, network_of="meter") as thief:
        assert thief.stdout
        seen = list(takewhile(lambda line: not line.startswith("Subscribed"), thief.stdout))
        send(node, "meter", "meter/last", "3")
        seen += takewhile(lambda line: not line.startswith("meter/last"), thief.stdout)
    assert not [line for line in seen if line.startswith("lamp/")]


@pytest.mark.parametrize(
    ("arguments", "secret", "message"),
    [
        (("a b", SECRET), b"x", "user 'a b' must be made of"),
        (("nanocloud", SECRET), b"x", "user 'nanocloud' belongs to the broker"),
        (("a" * 65, SECRET), b"x", "longer than 64"),
        (("a", "/nonexistent"), b"x", "cannot be read"),
        (("a", SECRET), b"", "empty"),
        (("a", SECRET), b"a\nb", "control character"),
        (("a", SECRET), b"a\0b", "control character"),
        (("a", SECRET), b"\xff\xfe", "UTF-8"),
        (("a", SECRET), b"x" * 257, "longer than 256"),
        (("a", SECRET, "a/#"), b"x", "topic prefix 'a/#' must be made of"),
        (("a", SECRET, "/a"), b"x", "topic prefix '/a' must be made of"),
        (("a", SECRET, "$SYS"), b"x", "topic prefix '$SYS' must be made of"),
        (("a",), b"x", "usage: create_user"),
    ],
)
def test_bad_words_are_refused_by_name(node: TestNode, arguments: tuple[str, ...], secret: bytes, message: str) -> None:
    assert message in inside(node, "mosquitto", "create_user", *arguments, secret=secret, code=64).stderr


def test_bindings_of_two_dependants_at_once_do_not_mix_up(node: TestNode) -> None:
    def work(number: int) -> None:
        name = f"user{number}"
        inside(node, "mosquitto", "create_user", name, SECRET, name, secret=name.encode())
        inside(node, "mosquitto", "verify_user", name, SECRET, name, secret=name.encode())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))


def test_accounts_and_messages_outlive_the_container_and_a_power_cut(node: TestNode) -> None:
    send(node, "lamp", "lamp/state", "on", "-r")
    node.cli("restart", "mosquitto", seconds=25)
    with listening(node, "lamp", "lamp/#") as subscriber:
        assert next_line(subscriber, "lamp/state") == "lamp/state on"
    os.kill(node.process_of("mosquitto"), signal.SIGKILL)
    node.until("pods", "mosquitto-0", lambda pod: is_ready(pod) and restarts(pod) == 1)
    with listening(node, "lamp", "lamp/#") as subscriber:
        assert next_line(subscriber, "lamp/state") == "lamp/state on"


def test_uninstalling_a_dependant_takes_its_account_only(node: TestNode) -> None:
    password = environment_of(node, "lamp")["PASSWORD"]
    node.cli("uninstall", "lamp", seconds=MINUTES)
    assert "Not authorized" in send(node, "lamp", "lamp/on", "1", password=password, code=None)
    assert send(node, "meter", "meter/a", "1") == ""


def restarts(pod: dict[str, Any] | None) -> int:
    return int(pod["status"]["containerStatuses"][0]["restartCount"]) if pod else -1
