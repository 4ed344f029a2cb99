"""A node as its users have it: ``nanocloud server`` as a process, in a network namespace of its own.

Everything of a node lies below one short folder (sockets need paths under 108 bytes):

    <folder>/s        NANOCLOUD_STATE_DIR
    <folder>/r        NANOCLOUD_RUN_DIR
    <folder>/net      its network namespace, bound to a file
    <folder>/home     HOME of its commands
    <folder>/config.toml

Processes are put into the network namespace alone (``nsenter --net``): ``ip netns exec`` would also give them a mount
namespace without the cgroup hierarchies.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tinyimages import Layout, add_tiny_services

from nanocloud.client.api import Api, ApiError, bundles_path, core_path
from nanocloud.client.endpoint import find_endpoint

NANOCLOUD = Path(sys.executable).with_name("nanocloud")
LIMIT_SECONDS = 60.0
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Server:
    """One run of ``nanocloud server``, or of another; lines on its standard error are kept, and can be waited for."""

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        self.pid = self.process.pid
        self.lines: list[str] = []
        self._ended = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.lines.append(line.decode(errors="replace").rstrip())
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for_line(self, text: str, seconds: float = LIMIT_SECONDS) -> str:
        with self._changed:
            self._changed.wait_for(lambda: self._ended or any(text in line for line in self.lines), seconds)
            found = [line for line in self.lines if text in line]
        assert found, f"the server never said {text!r}:\n" + self.log
        return found[0]

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    def runs_for(self, seconds: float) -> bool:
        """Let it work for so long; False if it ends before."""
        descriptor = os.pidfd_open(self.pid)
        try:
            return not select.select([descriptor], [], [], seconds)[0]
        finally:
            os.close(descriptor)

    def end(self, number: signal.Signals, seconds: float = LIMIT_SECONDS) -> float:
        """Send the signal and wait; returns the seconds it took. Whatever it started must not hold its log open."""
        began = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(number)
        assert self.process.wait(seconds) is not None
        took = time.monotonic() - began
        self._reader.join(seconds)
        assert not self._reader.is_alive(), "a process that the server started holds its standard error"
        assert self.process.stderr is not None
        self.process.stderr.close()
        return took


class TestNode:
    """A node and its users. Build it with ``making_node``, which takes it off again."""

    __test__ = False

    def __init__(
        self,
        folder: Path,
        *,
        config: str = "",
        environment: Mapping[str, str] | None = None,
        nanocloud: Path = NANOCLOUD,
        runtime: str = "runtime-crun",
    ) -> None:
        self.folder, self.nanocloud = folder, nanocloud
        self.state_dir, self.run_dir, self.home = folder / "s", folder / "r", folder / "home"
        self.cgroup = f"nce2e-{os.getpid()}-{folder.name}"
        self.network_file = folder / "net"
        self.home.mkdir(parents=True)
        file = folder / "config.toml"
        file.write_text(f'[{runtime}]\ncgroup = "/{self.cgroup}"\n{config}')
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("NANOCLOUD_", "KUBE"))}
        self.environment = {
            **clean,
            "HOME": str(self.home),
            "NANOCLOUD_CONFIG": str(file),
            "NANOCLOUD_STATE_DIR": str(self.state_dir),
            "NANOCLOUD_RUN_DIR": str(self.run_dir),
            **(environment or {}),
        }
        self.network_file.touch()
        subprocess.run(["unshare", f"--net={self.network_file}", "ip", "link", "set", "lo", "up"], check=True)
        self.layout = Layout(self.state_dir / "images" / "layout")
        for path in (self.state_dir, self.state_dir / "images"):
            path.chmod(0o700)
        add_tiny_services(self.layout)
        self.server: Server | None = None
        self.token = ""

    # Processes

    def inside(self, *command: str | Path) -> list[str]:
        """The command, in the node's network namespace."""
        return ["nsenter", f"--net={self.network_file}", "--", *map(str, command)]

    def run(
        self,
        *command: str | Path,
        code: int | None = 0,
        stdin: str | None = None,
        environment: Mapping[str, str] | None = None,
        seconds: float = LIMIT_SECONDS,
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.inside(*command),
            env={**self.environment, **(environment or {})},
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        said = f"{' '.join(map(str, command))}\nended with {done.returncode}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr, said
        if code is not None:
            assert done.returncode == code, f"{said}\nserver:\n{self.server.log if self.server else ''}"
        return done

    def spawn(self, *command: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.inside(*command), env=self.environment, **options)

    def cli(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """A ``nanocloud`` command; ``code`` is the exit status it has to have, None for any."""
        return self.run(self.nanocloud, *words, **options)

    def kubectl(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.run("kubectl", *words, **options)

    # The server

    def set_up(self) -> None:
        self.token = self.cli("setup").stdout.split()[-1]

    def start(self, *words: str) -> Server:
        self.server = Server(self.inside(self.nanocloud, "server", "--log-format", "json", *words), self.environment)
        self.server.wait_for_line("nanocloud is serving")
        return self.server

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        assert self.server is not None
        return self.server.end(number)

    # The API, from this process: a socket belongs to the network namespace of the thread that makes it.

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread in the node's network namespace."""
        with Path("/proc/thread-self/ns/net").open() as before, self.network_file.open() as file:
            _set_network(file.fileno())
            try:
                yield
            finally:
                _set_network(before.fileno())

    def api(self) -> Api:
        return Api(find_endpoint({k: v for k, v in self.environment.items() if k != "KUBECONFIG"}))

    def request(self, method: str, path: str, **options: Any) -> Any:
        with self.entered():
            api = self.api()
            try:
                return api.request(method, path, **options)
            finally:
                api.close()

    def get(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any] | None:
        """An object, None where there is none; ``kind`` is the plural."""
        path = _path(kind, namespace, name)
        try:
            found: dict[str, Any] = self.request("GET", path)
        except ApiError as exc:
            if exc.code != 404:
                raise
            return None
        return found

    def bundle(self, name: str, namespace: str = "default") -> dict[str, Any]:
        found = self.get("bundles", name, namespace)
        assert found is not None, f"bundle {name} is not there"
        return found

    def pod(self, service: str, namespace: str = "default") -> dict[str, Any]:
        found = self.get("pods", f"{service}-0", namespace)
        assert found is not None, f"pod {service}-0 is not there"
        return found

    def events(self, namespace: str = "default") -> list[dict[str, Any]]:
        """In the order in which they were written."""
        items = self.request("GET", core_path(namespace, "events"))["items"]
        return sorted(items, key=lambda event: int(event["metadata"]["resourceVersion"]))

    def create(self, name: str, spec: Mapping[str, Any] | None = None, namespace: str = "default") -> None:
        """Make a Bundle and go on; ``install`` without its waiting."""
        body = {
            "apiVersion": "nanocloud.io/v1",
            "kind": "Bundle",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"service": name, **(spec or {})},
        }
        self.request("POST", bundles_path(namespace), body=body)

    def until(
        self,
        kind: str,
        name: str,
        holds: Callable[[dict[str, Any] | None], bool],
        seconds: float = LIMIT_SECONDS,
        namespace: str = "default",
    ) -> dict[str, Any] | None:
        """Watch one object until ``holds``; None stands for an object that is not there."""
        path = _path(kind, namespace)
        page = self.request("GET", path)
        found = next((item for item in page["items"] if item["metadata"]["name"] == name), None)
        if holds(found):
            return found
        query = {
            "resourceVersion": page["metadata"]["resourceVersion"],
            "fieldSelector": f"metadata.name={name}",
            "timeoutSeconds": str(max(1, round(seconds))),
        }
        with closing(self.api().watch(path, query=query)) as changes:
            while True:
                with self.entered():
                    change = next(changes, None)
                assert change is not None, f"{kind}/{name} did not come to it:\n{json.dumps(found, indent=1)}"
                found = None if change[0] == "DELETED" else change[1]
                if holds(found):
                    return found

    def until_settled(self, name: str) -> dict[str, Any]:
        """Until the bundle is ready, or has failed."""
        found = self.until("bundles", name, lambda bundle: is_ready(bundle) or phase(bundle) == "Failed")
        assert found is not None
        return found

    def env_of(self, service: str) -> dict[str, str]:
        """The environment of the service's container."""
        lines = self.cli("exec", service, "--", "env").stdout.splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def process_of(self, service: str) -> int:
        """The host's number of the container's first process."""
        identifier = self.pod(service)["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
        members = Path(f"/sys/fs/cgroup/pids/{self.cgroup}/{identifier}/cgroup.procs")
        if not members.exists():
            members = Path(f"/sys/fs/cgroup/{self.cgroup}/{identifier}/cgroup.procs")
        return min(map(int, members.read_text().split()), key=_started)

    def remove(self) -> None:
        """Take the node off the machine, by its own means."""
        try:
            if self.server is not None and self.server.process.poll() is None:
                self.server.end(signal.SIGTERM)
            self.cli("reset", "--yes", seconds=5 * LIMIT_SECONDS)  # gigabytes of unpacked images on a busy disk
        finally:
            subprocess.run(["umount", str(self.network_file)], check=True)


@contextmanager
def making_node(
    folder: Path,
    *,
    config: str = "",
    environment: Mapping[str, str] | None = None,
    set_up: bool = True,
    start: bool = True,
    nanocloud: Path = NANOCLOUD,
    runtime: str = "runtime-crun",
) -> Iterator[TestNode]:
    """``nanocloud`` is the command of the environment that the node runs from; ``runtime`` is the plugin whose table
    gets the node's control group."""
    node = TestNode(folder, config=config, environment=environment, nanocloud=nanocloud, runtime=runtime)
    try:
        if set_up:
            node.set_up()
        if start:
            node.start()
        yield node
    finally:
        node.remove()


def _path(kind: str, namespace: str, *name: str) -> str:
    if kind in ("bundles", "bindings"):
        return bundles_path(namespace, *name).replace("/bundles", f"/{kind}", 1)
    return core_path(namespace, kind, *name)


def _set_network(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _started(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return sys.maxsize  # a process of a probe, which has ended since


def phase(bundle: Mapping[str, Any] | None) -> str:
    return ((bundle or {}).get("status") or {}).get("phase", "")


def is_ready(found: Mapping[str, Any] | None) -> bool:
    """Of a bundle or a pod, in its present generation."""
    status = (found or {}).get("status") or {}
    if found and status.get("observedGeneration", 1) < found["metadata"].get("generation", 1):
        return False
    return any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or [])


def is_gone(found: Mapping[str, Any] | None) -> bool:
    return found is None
