"""NATS as its dependants have it: an account each, with subjects and streams that no other sees, over TLS."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import pytest
from catalogue import MINUTES, catalogue_fixture
from inside import AUTHORITY, SECRET, environment_of, foreign_authority, inside, trusting
from nodes import TestNode, is_ready
from tinyimages import Layout

pytestmark = pytest.mark.images
node = catalogue_fixture("nats")

HOST = "nats.default.svc"
CLIENT_OPTIONS = {
    "broker=&nats": ["*broker_host", "*broker_port", "&create_user $user $password"],
    "user": ["!bundle"],
    "password": ["!rand 32 alnum"],
    "env_PASSWORD": ["*password", "$password"],
}


class RefusedError(Exception):
    """The server's own words."""


class Client:
    """As much of the protocol as the tests need (docs.nats.io, "Client Protocol")."""

    def __init__(self, plain: socket.socket, context: ssl.SSLContext | None) -> None:
        """The connection is the client's from here on, which ``close`` ends."""
        self._file: Any = None
        self._socket = plain
        self._numbers = iter(range(1, 1000))
        self.info = json.loads(_line(plain).removeprefix(b"INFO "))
        if context:
            self._socket = context.wrap_socket(plain, server_hostname=HOST)
        self._file = self._socket.makefile("rb")

    def login(self, user: str, password: str) -> None:
        self.send("CONNECT " + json.dumps({"user": user, "pass": password, "verbose": False, "pedantic": False}))
        self.ping()

    def close(self) -> None:
        if self._file:
            self._file.close()
        self._socket.close()

    def send(self, line: str, payload: bytes | None = None) -> None:
        self._socket.sendall(line.encode() + b"\r\n" + (b"" if payload is None else payload + b"\r\n"))

    def ping(self) -> None:
        """Everything that was sent before has been done when this returns."""
        self.send("PING")
        while self._read() != b"PONG":
            pass

    def subscribe(self, subject: str) -> None:
        self.send(f"SUB {subject} {next(self._numbers)}")
        self.ping()

    def publish(self, subject: str, payload: bytes, reply: str = "") -> None:
        self.send(f"PUB {subject} {reply} {len(payload)}", payload)

    def message(self) -> tuple[str, bytes]:
        """The next one: subject and content."""
        while not (line := self._read()).startswith(b"MSG "):
            pass
        _, subject, *_, size = line.decode().split()
        content = self._file.read(int(size))
        self._file.read(2)
        return subject, content

    def request(self, subject: str, body: dict[str, Any]) -> dict[str, Any]:
        inbox = f"_INBOX.{next(self._numbers)}"
        self.subscribe(inbox)
        self.publish(subject, json.dumps(body).encode(), inbox)
        while True:
            name, content = self.message()
            if name == inbox:
                answer: dict[str, Any] = json.loads(content)
                assert "error" not in answer, answer
                return answer

    def _read(self) -> bytes:
        line = self._file.readline()
        if not line:
            raise ConnectionResetError("the server hung up")
        line = line.strip()
        if line.startswith(b"-ERR"):
            raise RefusedError(line.decode())
        if line == b"PING":
            self.send("PONG")
        return line


def _line(plain: socket.socket) -> bytes:
    read = b""
    while not read.endswith(b"\r\n"):
        byte = plain.recv(1)  # what follows belongs to TLS
        assert byte
        read += byte
    return read


@pytest.fixture(scope="module", autouse=True)
def clients(node: TestNode) -> None:
    image = Layout(node.folder / "clients").add(
        "client", command=["sleep", "1000000"], labels={"io.nanocloud.options": CLIENT_OPTIONS}, user="1000:1000"
    )
    for bundle in ("shop", "blog"):
        node.cli("install", bundle, "--image", image, seconds=MINUTES)


@contextmanager
def client(
    node: TestNode,
    user: str,
    password: str = "",
    *,
    authority: str = AUTHORITY,
    tls: bool = True,
    service: str = "nats",
) -> Iterator[Client]:
    password = password or environment_of(node, user)["PASSWORD"]
    context = trusting(node, service, authority) if tls else None
    address = node.pod(service)["status"]["podIP"]
    with node.entered():
        plain = socket.create_connection((address, 4222), timeout=30)
    with plain, closing(Client(plain, context)) as made:
        made.login(user, password)
        yield made


def test_dependants_speak_over_tls_and_hear_only_themselves(node: TestNode) -> None:
    with client(node, "shop") as one, client(node, "shop") as two, client(node, "blog") as other:
        for each in (two, other):
            each.subscribe(">")
        one.publish("orders", b"42")
        assert two.message() == ("orders", b"42")
        other.publish("own", b"1")
        assert other.message() == ("own", b"1")  # the first that it hears


def test_tls_is_encrypted_and_the_server_is_known(node: TestNode) -> None:
    with client(node, "shop") as one:
        assert one.info["tls_required"] is True
        assert isinstance(one._socket, ssl.SSLSocket)
        assert one._socket.version() == "TLSv1.3"
    foreign = foreign_authority(node, "nats")
    with pytest.raises(ssl.SSLCertVerificationError), client(node, "shop", authority=foreign):
        pass
    with pytest.raises((RefusedError, ConnectionError)), client(node, "shop", tls=False):
        pass


def test_who_has_no_account_is_refused(node: TestNode) -> None:
    for user, password in (("shop", "wrong"), ("nobody", "x"), ("nanocloud", "x"), ("", "x")):
        with pytest.raises(RefusedError, match="Authorization Violation"), client(node, user, password):
            pass


def streams(one: Client) -> list[str]:
    return one.request("$JS.API.STREAM.NAMES", {})["streams"] or []


def test_a_stream_is_of_one_account(node: TestNode) -> None:
    with client(node, "shop") as shop, client(node, "blog") as blog:
        for one in (shop, blog):
            one.request("$JS.API.STREAM.CREATE.EVENTS", {"name": "EVENTS", "subjects": ["events.>"]})
        acknowledged = shop.request("events.a", {"n": 1})
        assert acknowledged == {"stream": "EVENTS", "seq": 1}
        for one, count in ((shop, 1), (blog, 0)):
            assert one.request("$JS.API.STREAM.INFO.EVENTS", {})["state"]["messages"] == count


def test_users_of_one_account_hear_each_other(node: TestNode) -> None:
    for user in ("sensor", "display"):
        inside(node, "nats", "create_user", user, SECRET, "house", secret=b"x")
        inside(node, "nats", "verify_user", user, SECRET, "house", secret=b"x")
    with client(node, "sensor", "x") as sensor, client(node, "display", "x") as display:
        display.subscribe("rooms.*")
        sensor.publish("rooms.kitchen", b"21")
        assert display.message() == ("rooms.kitchen", b"21")


def test_any_printable_password_works_and_is_written_nowhere(node: TestNode) -> None:
    for password in (b"simple", b"a'b\"c\\d`e$f;g h -- #%s", "schl\u00fcssel \u20ac".encode(), b"x" * 71):
        for _ in range(2):
            assert inside(node, "nats", "create_user", "till", SECRET, secret=password).stdout == ""
        inside(node, "nats", "verify_user", "till", SECRET, secret=password)
        inside(node, "nats", "verify_user", "till", SECRET, secret=password[1:] + b"!", code=1)
        inside(node, "nats", "verify_user", "tilly", SECRET, secret=password, code=1)
    for place in ("/var/lib/nats", "/dev/shm", "/tmp"):
        assert inside(node, "nats", "grep", "-rl", "xxxxxxxx", place, user=975, code=1).stdout == ""
    log = node.cli("logs", "nats").stdout
    assert "authentication error" in log
    assert "xxxxxxxx" not in log


def test_revoking_ends_connections_and_making_it_again_gives_the_streams_back(node: TestNode) -> None:
    inside(node, "nats", "revoke_user", "notes", "/dev/null")  # nothing is there
    inside(node, "nats", "create_user", "notes", SECRET, secret=b"one")
    with client(node, "notes", "one") as notes, client(node, "blog") as blog:
        notes.request("$JS.API.STREAM.CREATE.KEPT", {"name": "KEPT", "subjects": ["kept"]})
        notes.request("kept", {"n": 1})
        for _ in range(2):
            inside(node, "nats", "revoke_user", "notes", "/dev/null")
        with pytest.raises((RefusedError, ConnectionError)):
            notes.message()
        blog.ping()  # the other dependants never noticed
    with pytest.raises(RefusedError), client(node, "notes", "one"):
        pass
    inside(node, "nats", "create_user", "notes", SECRET, secret=b"two")
    with client(node, "notes", "two") as notes:
        assert notes.request("$JS.API.STREAM.INFO.KEPT", {})["state"]["messages"] == 1


@pytest.mark.parametrize(
    ("arguments", "secret", "message"),
    [
        (("a b", SECRET), b"x", "user 'a b' must be made of"),
        (("nanocloud", SECRET), b"x", "user 'nanocloud' belongs to the server"),
        (("a", SECRET, "nanocloud"), b"x", "account 'nanocloud' belongs to the server"),
        (("a", SECRET, "$G"), b"x", "account '$G' must be made of"),
        (("a" * 65, SECRET), b"x", "longer than 64"),
        (("a", "/nonexistent"), b"x", "cannot be read"),
        (("a", SECRET), b"", "empty"),
        (("a", SECRET), b"a\nb", "control character"),
        (("a", SECRET), b"\xff\xfe", "UTF-8"),
        (("a", SECRET), b"x" * 72, "longer than 71"),
        (("a",), b"x", "usage: create_user"),
    ],
)
def test_bad_words_are_refused_by_name(node: TestNode, arguments: tuple[str, ...], secret: bytes, message: str) -> None:
    assert message in inside(node, "nats", "create_user", *arguments, secret=secret, code=64).stderr


def test_bindings_of_several_dependants_at_once_all_count(node: TestNode) -> None:
    def work(number: int) -> None:
        inside(node, "nats", "create_user", f"user{number}", SECRET, secret=b"x")
        inside(node, "nats", "verify_user", f"user{number}", SECRET, secret=b"x")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))


def test_accounts_and_streams_outlive_the_container_and_a_power_cut(node: TestNode) -> None:
    with client(node, "shop") as shop:
        shop.request("$JS.API.STREAM.CREATE.STAYS", {"name": "STAYS", "subjects": ["stays"]})
        shop.request("stays", {"n": 1})
    node.cli("restart", "nats", seconds=25)
    with client(node, "shop") as shop:
        assert shop.request("stays", {"n": 2})["seq"] == 2
    os.kill(node.process_of("nats"), signal.SIGKILL)
    node.until("pods", "nats-0", lambda pod: is_ready(pod) and restarts(pod) == 1)
    with client(node, "shop") as shop:
        assert shop.request("stays", {"n": 3})["seq"] == 3


def restarts(pod: dict[str, Any] | None) -> int:
    return int(pod["status"]["containerStatuses"][0]["restartCount"]) if pod else -1


def test_uninstalling_a_dependant_takes_its_account_only(node: TestNode) -> None:
    password = environment_of(node, "blog")["PASSWORD"]
    node.cli("uninstall", "blog", seconds=MINUTES)
    with pytest.raises(RefusedError, match="Authorization Violation"), client(node, "blog", password):
        pass
    with client(node, "shop") as shop:
        shop.ping()


def test_connections_in_the_clear_are_taken_where_the_user_says_so(node: TestNode) -> None:
    node.cli("install", "open", "--image", f"oci:{node.layout.folder}:nats", "-o", "transport=any", seconds=MINUTES)
    inside(node, "open", "create_user", "shop", SECRET, secret=b"x")
    inside(node, "open", "verify_user", "shop", SECRET, secret=b"x")
    with client(node, "shop", "x", tls=False, service="open") as shop:
        shop.ping()
