"""An unmodified kubectl against the real server: TLS, a real keyspace, pods answered by a script."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import ssl
import struct
import subprocess
import termios
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest
import trio
import trustme
from cryptography import x509
from cryptography.x509.oid import NameOID

from nanocloud.apiserver.app import build_app
from nanocloud.apiserver.auth import MASTERS, User
from nanocloud.apiserver.context import ApiContext
from nanocloud.apiserver.server import serve
from nanocloud.errors import BadRequestError
from nanocloud.models.bundle import BUNDLE
from nanocloud.models.core import CONFIG_MAP
from nanocloud.models.meta import now
from nanocloud.models.pod import POD
from nanocloud.objects import EventRecorder, ObjectStore
from nanocloud.providers.runtime import ExecSession, ExecSpec
from nanocloud.testkit import FakeStorage
from nanocloud.testkit.objects import open_store

KUBECTL = shutil.which("kubectl")
pytestmark = pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed")


class CertificateUsers:
    async def authenticate(self, scope: Mapping[str, Any]) -> User | None:
        der = scope["state"]["tls"]["der"]
        if der is None:
            return None
        subject = x509.load_der_x509_certificate(der).subject
        return User(name=str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value), groups=frozenset({MASTERS}))


class ScriptedSession(ExecSession):
    """A host process stands for the container's."""

    def __init__(self, process: trio.Process, terminal: int | None) -> None:
        self._process, self._terminal = process, terminal
        self.stdin, self.stderr = process.stdin, process.stderr
        if terminal is not None:
            self.stdin = self.stdout = trio.lowlevel.FdStream(terminal)
        else:
            assert process.stdout is not None
            self.stdout = process.stdout

    async def resize(self, *, rows: int, columns: int) -> None:
        assert self._terminal is not None
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def wait(self) -> int:
        return await self._process.wait()


class ScriptedPods:
    """Logs from a list, exec on the host."""

    def __init__(self) -> None:
        self.more: list[bytes] = []
        self.wake = trio.Event()

    @asynccontextmanager
    async def read_logs(self, namespace: str, pod: str, container: str | None, **options: Any) -> AsyncIterator[Any]:
        if options["previous"]:
            raise BadRequestError(f'previous terminated container "{container}" in pod "{pod}" not found')

        async def pieces() -> AsyncIterator[bytes]:
            lines = [b"one\n", b"two\n", b"three\n"]
            yield b"".join(lines[-options["tail_lines"] :] if options["tail_lines"] is not None else lines)
            if options["follow"]:
                await self.wake.wait()
                for piece in self.more:
                    yield piece

        yield pieces()

    @asynccontextmanager
    async def exec(
        self, namespace: str, pod: str, container: str | None, spec: ExecSpec, *, as_binding: bool = False
    ) -> AsyncIterator[ExecSession]:
        if spec.terminal:
            terminal, inner = pty.openpty()
            process = await trio.lowlevel.open_process(
                list(spec.argv), stdin=inner, stdout=inner, stderr=inner, start_new_session=True
            )
            os.close(inner)
        else:
            terminal, stdin = None, subprocess.PIPE if spec.stdin else subprocess.DEVNULL
            process = await trio.lowlevel.open_process(
                list(spec.argv), stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        try:
            yield ScriptedSession(process, terminal)
        finally:
            if process.returncode is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


@attrs.define
class Cluster:
    store: ObjectStore
    pods: ScriptedPods
    environment: dict[str, str]
    folder: Path
    binary: str = KUBECTL or "kubectl"

    async def run(self, *arguments: str, stdin: bytes = b"", ok: bool = True) -> str:
        command = [self.binary, *arguments]
        with trio.fail_after(30):
            done = await trio.run_process(
                command, stdin=stdin, capture_stdout=True, capture_stderr=True, check=False, env=self.environment
            )
        text: str = (done.stdout + done.stderr).decode()
        assert (done.returncode == 0) is ok, f"{command} ended with {done.returncode}: {text}"
        return text


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    ca = trustme.CA()
    server, client = ca.issue_cert("127.0.0.1"), ca.issue_cert(common_name="tester")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_OPTIONAL
    server.configure_cert(context)
    ca.configure_trust(context)
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    client.cert_chain_pems[0].write_to_path(str(tmp_path / "client.pem"))
    client.private_key_pem.write_to_path(str(tmp_path / "client.key"))
    async with (
        open_store(FakeStorage()) as store,
        trio.open_nursery() as nursery,
    ):
        pods = ScriptedPods()
        app = build_app(ApiContext(store=store, authenticator=CertificateUsers(), pods=pods))
        [(host, port)] = await nursery.start(partial(serve, app, listen="127.0.0.1:0", ssl_context=context))
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [
                {
                    "name": "test",
                    "cluster": {
                        "server": f"https://{host}:{port}",
                        "certificate-authority": str(tmp_path / "ca.pem"),
                    },
                }
            ],
            "users": [
                {
                    "name": "tester",
                    "user": {
                        "client-certificate": str(tmp_path / "client.pem"),
                        "client-key": str(tmp_path / "client.key"),
                    },
                }
            ],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "tester"}}],
        }
        (tmp_path / "kubeconfig").write_bytes(orjson.dumps(config))
        environment = {
            "KUBECONFIG": str(tmp_path / "kubeconfig"),
            "HOME": str(tmp_path),
            "PATH": os.environ["PATH"],
            "NO_PROXY": "127.0.0.1",
        }
        yield Cluster(store, pods, environment, tmp_path)
        nursery.cancel_scope.cancel()


async def running_pod(store: ObjectStore, name: str = "web-0") -> None:
    spec = {"containers": [{"name": "main", "image": "web:1"}], "nodeName": "node"}
    made = await store.create(POD, {"metadata": {"name": name, "namespace": "default"}, "spec": spec})
    made["status"] = {
        "phase": "Running",
        "podIP": "10.1.2.3",
        "startTime": now(),
        "conditions": [{"type": kind, "status": "True"} for kind in ("Initialized", "ContainersReady", "Ready")],
        "containerStatuses": [
            {
                "name": "main",
                "ready": True,
                "restartCount": 2,
                "image": "web:1",
                "state": {"running": {"startedAt": now()}},
            }
        ],
    }
    await store.update(POD, made, subresource="status")


BUNDLE_YAML = """\
apiVersion: nanocloud.io/v1
kind: Bundle
metadata:
  name: shop
spec:
  service: mariadb
  options:
    port: "3307"
"""


async def test_get_shows_bundles_and_pods_of_all_namespaces(cluster: Cluster) -> None:
    await running_pod(cluster.store)
    await cluster.store.create(
        BUNDLE, {"metadata": {"name": "web", "namespace": "default"}, "spec": {"service": "nginx"}}
    )
    text = await cluster.run("get", "bundles,pods", "-A")
    bundle, pod = (line.split() for line in text.splitlines() if line.startswith("default"))
    assert bundle[:5] == ["default", "bundle.nanocloud.io/web", "nginx", "Unknown", "Pending"]
    assert pod[:5] == ["default", "pod/web-0", "1/1", "Running", "2"]
    wide = await cluster.run("get", "pods", "-o", "wide")
    assert "10.1.2.3" in wide
    assert "No resources found" in await cluster.run("get", "secrets")


async def test_apply_creates_changes_and_sees_no_change(cluster: Cluster) -> None:
    file = cluster.folder / "bundle.yaml"
    file.write_text(BUNDLE_YAML)
    assert "bundle.nanocloud.io/shop created" in await cluster.run("apply", "-f", str(file))
    assert "shop unchanged" in await cluster.run("apply", "-f", str(file))
    file.write_text(BUNDLE_YAML.replace("3307", "3308"))
    assert "shop configured" in await cluster.run("apply", "-f", str(file))
    stored = await cluster.store.get(BUNDLE, "default", "shop")
    assert stored["spec"]["options"] == {"port": "3308"}
    file.write_text(BUNDLE_YAML.replace("options:", "optons:"))
    assert 'unknown field "spec.optons"' in await cluster.run("apply", "-f", str(file), ok=False)
    file.write_text(BUNDLE_YAML.replace("service: mariadb", "service: Maria_DB"))
    assert "spec.service" in await cluster.run("create", "-f", str(file), ok=False)


async def test_delete_waits_for_the_finalizer(cluster: Cluster) -> None:
    await cluster.store.create(
        BUNDLE, {"metadata": {"name": "web", "namespace": "default"}, "spec": {"service": "nginx"}}
    )

    async def uninstall() -> None:
        async with cluster.store.watch(BUNDLE, "default", after=cluster.store.revision) as events:
            async for event in events:
                if event.object["metadata"].get("deletionTimestamp"):
                    released = event.object
                    released["metadata"]["finalizers"] = []
                    await cluster.store.update(BUNDLE, released)
                    return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(uninstall)
        assert 'bundle.nanocloud.io "web" deleted' in await cluster.run("delete", "bundle", "web")
    assert await cluster.store.find(BUNDLE, "default", "web") is None
    assert 'bundles.nanocloud.io "web" not found' in await cluster.run("get", "bundle", "web", ok=False)


async def test_get_watch_follows_changes(cluster: Cluster) -> None:
    await running_pod(cluster.store, "first-0")
    command = [cluster.binary, "get", "pods", "-w"]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, env=cluster.environment)
    assert process.stdout is not None
    seen = b""
    try:
        with trio.fail_after(30):
            while b"first-0" not in seen:
                seen += await process.stdout.receive_some()
            await running_pod(cluster.store, "second-0")
            while seen.count(b"second-0") < 2:
                seen += await process.stdout.receive_some()
    finally:
        process.kill()
        await process.wait()
    assert b"second-0" in seen
    assert seen.count(b"NAME ") == 1


async def test_describe_reads_objects_and_their_events(cluster: Cluster) -> None:
    await running_pod(cluster.store)
    pod = await cluster.store.get(POD, "default", "web-0")
    await EventRecorder(cluster.store, component="kubelet").record(pod, reason="Started", message="container started")
    text = await cluster.run("describe", "pod", "web-0")
    assert re.search(r"^IP:\s+10\.1\.2\.3$", text, re.MULTILINE)
    assert "container started" in text
    await cluster.store.create(
        BUNDLE, {"metadata": {"name": "web", "namespace": "default"}, "spec": {"service": "nginx"}}
    )
    assert "Service:" in await cluster.run("describe", "bundle", "web")


async def test_logs_are_read_and_followed(cluster: Cluster) -> None:
    await running_pod(cluster.store)
    assert await cluster.run("logs", "web-0") == "one\ntwo\nthree\n"
    assert await cluster.run("logs", "web-0", "--tail", "1") == "three\n"
    assert "not found" in await cluster.run("logs", "web-0", "--previous", ok=False)
    cluster.pods.more = [b"four\n"]
    command = [cluster.binary, "logs", "-f", "web-0"]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, env=cluster.environment)
    assert process.stdout is not None
    seen = b""
    with trio.fail_after(30):
        while not seen.endswith(b"three\n"):
            seen += await process.stdout.receive_some()
        cluster.pods.wake.set()
        while piece := await process.stdout.receive_some():
            seen += piece
        assert await process.wait() == 0
    assert seen == b"one\ntwo\nthree\nfour\n"


async def test_exec_gives_output_error_and_exit_status(cluster: Cluster) -> None:
    await running_pod(cluster.store)
    assert await cluster.run("exec", "web-0", "--", "echo", "a b") == "a b\n"
    text = await cluster.run("exec", "web-0", "--", "sh", "-c", "echo bad >&2; exit 3", ok=False)
    assert "bad\n" in text
    assert "exit code 3" in text


async def test_exec_passes_input_and_its_end(cluster: Cluster) -> None:
    await running_pod(cluster.store)
    data = os.urandom(3_000_000)
    command = [cluster.binary, "exec", "-i", "web-0", "--", "sha256sum"]
    with trio.fail_after(60):
        done = await trio.run_process(command, stdin=data, capture_stdout=True, env=cluster.environment)
        expected = await trio.run_process(["sha256sum"], stdin=data, capture_stdout=True)
    assert done.stdout == expected.stdout


async def test_exec_with_a_terminal_passes_keys_and_size(cluster: Cluster) -> None:
    await running_pod(cluster.store)
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    # The size arrives beside the keys, so the shell waits for it.
    script = 'until [ "$(stty size)" = "33 77" ]; do sleep 0.01; done; read line; echo "got $line"; exit 5'
    command = [cluster.binary, "exec", "-it", "web-0", "--", "sh", "-c", script]
    process = await trio.lowlevel.open_process(
        command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=cluster.environment
    )
    os.close(theirs)
    assert process.stderr is not None
    async with trio.lowlevel.FdStream(ours) as terminal:
        await terminal.send_all(b"hello\r")
        seen, errors = b"", b""
        with trio.fail_after(30):
            while b"got hello" not in seen:
                seen += await terminal.receive_some()
            assert await process.wait() == 5
            while piece := await process.stderr.receive_some():
                errors += piece
    assert b"exit code 5" in errors


async def test_create_edit_and_list_small_kinds(cluster: Cluster) -> None:
    assert "namespace/shop created" in await cluster.run("create", "namespace", "shop")
    assert "configmap/c created" in await cluster.run("create", "configmap", "c", "--from-literal=a=1", "-n", "shop")
    created = await cluster.run("create", "secret", "generic", "s", "--from-literal=password=hunter2", "-n", "shop")
    assert "secret/s created" in created
    assert "configmap/c labeled" in await cluster.run("label", "configmap", "c", "x=y", "-n", "shop")
    assert "configmap/c patched" in await cluster.run(
        "patch", "configmap", "c", "-n", "shop", "--type", "json", "-p", '[{"op":"add","path":"/data/b","value":"2"}]'
    )
    stored = await cluster.store.get(CONFIG_MAP, "shop", "c")
    assert (stored["data"], stored["metadata"]["labels"]) == ({"a": "1", "b": "2"}, {"x": "y"})
    assert "c" in await cluster.run("get", "cm", "-A", "-l", "x in (y,z)")
    assert "No resources" in await cluster.run("get", "cm", "-A", "-l", "x!=y,x")
    assert "hunter2" not in await cluster.run("describe", "secret", "s", "-n", "shop")


async def test_wait_events_explain_and_api_resources(cluster: Cluster) -> None:
    await running_pod(cluster.store)
    assert "condition met" in await cluster.run("wait", "--for=condition=Ready", "pod/web-0", "--timeout=10s")
    pod = await cluster.store.get(POD, "default", "web-0")
    await EventRecorder(cluster.store).record(pod, reason="BackOff", message="again", type="Warning")
    assert "BackOff" in await cluster.run("events", "--for", "pod/web-0")
    assert "Warning" in await cluster.run("get", "events")
    assert "The service of the catalogue to install." in await cluster.run("explain", "bundle.spec.service")
    resources = await cluster.run("api-resources")
    assert "nanocloud.io/v1" in resources
    assert "Server Version: v1.33" in await cluster.run("version")
