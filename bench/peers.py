"""The peers, each started for a measure alone, with nothing shared with a podman, docker or etcd of the machine.

Podman and docker run in enclosures (see there); their stores lie in the folder that is given, which the caller removes.
Both have the files and the limits that they have by default, but for what a machine does not allow.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
from enclosure import Enclosure, enclosure

DOCKER = "/usr/bin/docker"
DOCKERD = "/usr/sbin/dockerd"
GATEWAY = "10.88.0.1"
"""The enclosure's own address on the bridge of docker and of podman: where their containers reach it."""
_LIMIT_SECONDS = 30.0


class PeerError(Exception):
    """A peer's command failed; says which, and what it said."""


@attrs.frozen
class Peer:
    """Podman or docker: ``name`` and the words that every command of it begins with, as run from outside."""

    name: str
    words: tuple[str, ...]
    environment: dict[str, str]
    inside: Enclosure
    run_options: tuple[str, ...] = ()
    """What every ``run`` needs, so that nothing is left behind."""

    def command(self, *words: str) -> list[str]:
        return [*self.words, *words]

    def run(self, *words: str) -> str:
        """One command to its end.

        Raises:
            PeerError: it failed.
        """
        return run(*self.command(*words), environment=self.environment)

    def spawn(self, *words: str) -> subprocess.Popen[bytes]:
        """One command, not waited for."""
        return subprocess.Popen(
            self.command(*words),
            env=os.environ | self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def load(self, layout: Path, name: str) -> None:
        """Take the image ``name`` from an OCI layout folder."""
        archive = layout.with_name(f"{name}.tar")
        # What docker takes knows no zstd.
        form = "oci-archive" if self.name == "podman" else "docker-archive"
        reference = f"docker.io/library/{name}:latest"
        run("skopeo", "copy", "--quiet", f"oci:{layout}:{name}", f"{form}:{archive}:{reference}")
        self.run("load", "--quiet", f"--input={archive}")
        archive.unlink()


def run(*command: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        env=os.environ | (environment or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise PeerError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


@contextmanager
def podman(folder: Path, *, network: bool = True, pause: str = "") -> Iterator[Peer]:
    """Podman with crun, overlay and its bridge; no daemon.

    Args:
        network: False: no network of its own, for pulls.
        pause: the image that holds pods together, one with a ``sleep``; podman's own is not built.
    """
    folder.mkdir(parents=True)
    cgroup = f"ncbench-podman-{os.getpid()}"
    # Podman's own limits are above what root may raise in some machines.
    files, processes = (resource.getrlimit(kind)[1] for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC))
    limits = f'default_ulimits = ["nofile={_most(files)}", "nproc={_most(processes)}"]'
    config = folder / "containers.conf"
    engine = 'cgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
    if pause:
        engine += f'infra_image = "docker.io/library/{pause}:latest"\ninfra_command = "/bin/sleep 1000000"\n'
    config.write_text(f"[containers]\n{limits}\n[engine]\n{engine}")
    words = ["podman", f"--root={folder}/root", "--runroot=/run/podman", "--tmpdir=/run/podman-tmp"]
    words += ["--storage-driver=overlay", f"--network-config-dir={folder}/networks", "--runtime=crun"]
    with enclosure(network=network, cgroups=[cgroup, "libpod_parent"]) as inside:
        yield Peer(
            "podman",
            tuple(inside.command(*words)),
            {"CONTAINERS_CONF": str(config)},
            inside,
            (f"--cgroup-parent=/{cgroup}",),
        )


@contextmanager
def docker(folder: Path, *, network: bool = True) -> Iterator[Peer]:
    """The docker daemon with a containerd of its own and runc; up when the block begins."""
    folder.mkdir(parents=True)
    name = f"ncbench-docker-{os.getpid()}"
    host = f"unix://{folder}/docker.sock"
    words = [DOCKERD, f"--data-root={folder}/root", "--exec-root=/run/docker", f"--host={host}"]
    words += ["--pidfile=/run/docker.pid", f"--cgroup-parent=/{name}", "--log-level=error"]
    words += [f"--bip={GATEWAY}/16"] if network else ["--bridge=none", "--iptables=false", "--ip-forward=false"]
    with enclosure(network=network, cgroups=[name]) as inside, log_of(inside.command(*words)) as daemon:
        peer = Peer("docker", (DOCKER, "--host", host), {}, inside)
        wait_until(lambda: daemon.answers(*peer.command("version")), "dockerd", daemon)
        yield peer


@attrs.frozen
class Process:
    """A peer that runs; what it says goes to a file without a name, and is told when it fails to start."""

    popen: subprocess.Popen[bytes]
    log: int

    def answers(self, *command: str) -> bool:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def said(self) -> str:
        return os.pread(self.log, 1 << 16, 0).decode(errors="replace")


@contextmanager
def log_of(command: list[str]) -> Iterator[Process]:
    """The process until the end of the block; it is killed then, for nothing of it is kept."""
    log = os.memfd_create("log")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as popen:
        try:
            yield Process(popen, log)
        finally:
            popen.send_signal(signal.SIGKILL)
            popen.wait()
            os.close(log)


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """A registry on loopback, over plain HTTP; gives its ``host:port``."""
    folder.mkdir(parents=True, exist_ok=True)
    host = f"127.0.0.1:{free_port()}"
    config = folder / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}}}\nhttp: {{addr: '{host}'}}\n"
    )
    with log_of(["docker-registry", "serve", str(config)]) as process:
        wait_until(lambda: process.answers("curl", "-sf", f"http://{host}/v2/"), "docker-registry", process)
        yield host


@contextmanager
def etcd(folder: Path) -> Iterator[str]:
    """One member with its data in ``folder``, durable as by default; gives the URL that clients use."""
    words, client = etcd_command(folder)
    with log_of(words) as process:
        wait_until(lambda: process.answers("curl", "-sf", f"{client}/health"), "etcd", process)
        yield client


def etcd_command(folder: Path) -> tuple[list[str], str]:
    """What starts that member, and the URL; for a measure that waits for it itself."""
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    words = ["etcd", "--name=bench", f"--data-dir={folder}", f"--initial-cluster=bench={peer}", "--logger=zap"]
    words += [f"--listen-client-urls={client}", f"--advertise-client-urls={client}", "--log-level=error"]
    words += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
    return words, client


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(holds: Callable[[], bool], what: str, process: Process) -> None:
    limit = time.monotonic() + _LIMIT_SECONDS
    while not holds():
        if process.popen.poll() is not None or time.monotonic() > limit:
            raise PeerError(f"{what} does not come up:\n{process.said()}")
        time.sleep(0.05)


def missing(*programs: str) -> list[str]:
    return [program for program in programs if shutil.which(program) is None]


def _most(limit: int) -> str:
    most = 1 << 20 if limit == resource.RLIM_INFINITY else min(limit, 1 << 20)
    return f"{most}:{most}"
