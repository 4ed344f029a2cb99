"""An unmodified kubectl against a real node, with a kubeconfig that a single-use token was exchanged for."""

from __future__ import annotations

import base64
import json
import os
import pty
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from nodes import NANOCLOUD, TestNode, is_gone, is_ready

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")

BUNDLE = """\
apiVersion: nanocloud.io/v1
kind: Bundle
metadata:
  name: tinyapp
spec:
  service: tinyapp
  options:
    user: app-two
"""


def install_kubeconfig(node: TestNode, token: str, code: int = 0) -> str:
    """What the documentation says: ``nanocloud config --token TOKEN | sh``."""
    done = node.cli("config", "--token", token, code=code)
    if code == 0:
        node.run("sh", stdin=done.stdout)
    return done.stderr


@pytest.fixture(scope="module")
def app(node: TestNode) -> Iterator[TestNode]:
    install_kubeconfig(node, node.token)
    node.cli("install", "tinyapp")
    yield node
    for name in ("tinyapp", "tinydb"):
        if node.get("bundles", name) is not None:
            node.cli("uninstall", name)


class Terminal:
    """A process at the other end of a pseudo-terminal."""

    def __init__(self, node: TestNode, *command: str) -> None:
        self.master, inner = pty.openpty()
        self.process = node.spawn(*command, stdin=inner, stdout=inner, stderr=inner, start_new_session=True)
        os.close(inner)
        self.seen = b""

    def until(self, text: bytes, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            ready = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))[0]
            assert ready, self.seen
            try:
                self.seen += os.read(self.master, 4096)
            except OSError:  # the other end is closed
                break
        assert text in self.seen, self.seen

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def close(self) -> int:
        try:
            return self.process.wait(20)
        finally:
            os.close(self.master)


def read_until(process: subprocess.Popen[bytes], text: bytes, seconds: float = 20.0) -> bytes:
    """Lines of the process' output up to one that holds ``text``."""
    assert process.stdout is not None
    lines, deadline = b"", time.monotonic() + seconds
    while text not in lines:
        ready = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]
        assert ready, lines
        piece = os.read(process.stdout.fileno(), 65536)
        assert piece, lines
        lines += piece
    return lines


def test_a_token_makes_a_kubeconfig_before_the_server_first_runs(new_node: Callable[..., TestNode]) -> None:
    node = new_node(start=False)
    install_kubeconfig(node, node.token)
    file = node.home / ".kube/config"
    assert file.stat().st_mode & 0o777 == 0o600
    assert "the token is unknown, expired, or was used" in install_kubeconfig(node, node.token, code=2)
    node.start()
    assert "No resources found" in node.kubectl("get", "bundles", "-A").stderr
    # And while it runs, for somebody else.
    token = node.cli("token", "--user", "jane").stdout.strip()
    install_kubeconfig(node, token)
    assert (node.home / ".kube/config.before-nanocloud").exists()
    shown = node.kubectl("config", "view", "--raw", "-o", "jsonpath={.users[0].user.client-certificate-data}").stdout
    subject = x509.load_pem_x509_certificate(base64.b64decode(shown)).subject
    assert subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "jane"
    node.kubectl("get", "bundles")
    assert "the token is unknown, expired, or was used" in install_kubeconfig(node, token, code=2)


def test_a_wrong_token_is_refused(app: TestNode) -> None:
    said = install_kubeconfig(app, "nosuch.token", code=2)
    assert said.startswith("error: the bearer token does not hold: it is none that this node gave")


def test_get_shows_bundles_and_pods(app: TestNode) -> None:
    lines = [line.split() for line in app.kubectl("get", "bundles,pods", "-A").stdout.splitlines() if line]
    names = {words[1]: words for words in lines if words[0] == "default"}
    assert set(names) == {
        "bundle.nanocloud.io/tinyapp",
        "bundle.nanocloud.io/tinydb",
        "pod/tinyapp-0",
        "pod/tinydb-0",
    }
    assert names["pod/tinydb-0"][2:4] == ["1/1", "Running"]


def test_describe_tells_events(app: TestNode) -> None:
    assert "BindingCompleted" in app.kubectl("describe", "bundle", "tinyapp").stdout
    pod = app.kubectl("describe", "pod", "tinydb-0").stdout
    assert "Started container" in pod
    assert "Node:" in pod


def test_a_watch_shows_changes_as_they_happen(app: TestNode) -> None:
    watching = app.spawn("kubectl", "get", "bundles", "-w", stdout=subprocess.PIPE)
    try:
        read_until(watching, b"tinydb")
        app.cli("stop", "tinyapp")
        read_until(watching, b"Stopped")
        app.cli("start", "tinyapp")
        read_until(watching, b"Running")
    finally:
        watching.kill()
        watching.communicate()


def test_logs_follow(app: TestNode) -> None:
    following = app.spawn("kubectl", "logs", "-f", "tinydb-0", stdout=subprocess.PIPE)
    try:
        read_until(following, b"database is starting\n")
        app.kubectl("exec", "tinydb-0", "--", "sh", "-c", "echo more > /proc/1/fd/1")
        read_until(following, b"more\n")
    finally:
        following.kill()
        following.communicate()


@pytest.mark.parametrize("client", ["kubectl", "nanocloud"])
def test_exec_gives_a_terminal(app: TestNode, client: str) -> None:
    program, target = ("kubectl", "tinydb-0") if client == "kubectl" else (str(NANOCLOUD), "tinydb")
    shell = Terminal(app, program, "exec", "-it", target, "--", "sh")
    shell.until(b"# ")
    shell.type(b"test -t 0 && echo is-a-$((1+1))-terminal\n")
    shell.until(b"is-a-2-terminal")
    shell.type(b"exit 5\n")
    assert shell.close() == 5


def test_exec_passes_input_output_and_status(app: TestNode) -> None:
    assert app.kubectl("exec", "-i", "tinydb-0", "--", "cat", stdin="abc\n").stdout == "abc\n"
    assert app.kubectl("exec", "tinydb-0", "--", "sh", "-c", "echo no >&2; exit 3", code=3).stderr.startswith("no\n")
    missing = app.kubectl("exec", "tinydb-0", "--", "nosuchprogram", code=None)
    assert missing.returncode != 0
    assert "nosuchprogram" in missing.stderr


def test_a_manifest_installs_changes_and_removes(app: TestNode) -> None:
    for name in ("tinyapp", "tinydb"):
        if app.get("bundles", name) is not None:
            app.cli("uninstall", name)
    assert "created" in app.kubectl("apply", "-f", "-", stdin=BUNDLE).stdout
    app.kubectl("wait", "--for=condition=Ready", "bundle/tinyapp", "--timeout=60s")
    assert "app-two " in app.cli("exec", "tinydb", "--", "cat", "/data/users").stdout
    assert "unchanged" in app.kubectl("apply", "-f", "-", stdin=BUNDLE).stdout
    stopped = BUNDLE + "  start: false\n"
    assert "configured" in app.kubectl("apply", "-f", "-", stdin=stopped).stdout
    app.until("pods", "tinyapp-0", is_gone)
    app.kubectl("apply", "-f", "-", stdin=BUNDLE + "  start: true\n")
    app.until("bundles", "tinyapp", is_ready)
    assert "deleted" in app.kubectl("delete", "bundle", "tinyapp").stdout
    assert app.get("bundles", "tinyapp") is None
    app.until("bundles", "tinydb", is_gone)


def test_secrets_are_stored_sealed_and_given_back(app: TestNode) -> None:
    app.kubectl("create", "secret", "generic", "mine", "--from-literal=key=correct-horse-battery")
    try:
        found = json.loads(app.kubectl("get", "secret", "mine", "-o", "json").stdout)
        assert found["data"]["key"] == "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5"
        for path in Path(app.state_dir / "keyspace").rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                assert b"correct-horse" not in content
                assert b"Y29ycmVjdC1ob3Jz" not in content
    finally:
        app.kubectl("delete", "secret", "mine")
