"""Processes inside a service's container, as a test wants them: another user, another pod's network, a secret.

``nanocloud exec`` runs a command as the service itself. A binding command runs as nobody and finds secrets behind file
descriptors; a client of a service runs in the network of its own pod. Here both come without an installation each.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import trustme
from nodes import TestNode

SECRET = "<secret>"
"""Stands for the path of the secret in a command."""
AUTHORITY = "/run/nanocloud/tls/ca.crt"
NOBODY = 65534
_ENVIRONMENT = {
    "PATH": "/usr/lib/nanocloud/bindings:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/nonexistent",
}
_UNPRIVILEGED = ("--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")


def inside(
    node: TestNode,
    service: str,
    *argv: str,
    network_of: str = "",
    user: int = NOBODY,
    environment: Mapping[str, str] | None = None,
    secret: bytes | None = None,
    code: int | None = 0,
) -> subprocess.CompletedProcess[str]:
    """Run a command with the files of ``service`` and the network of ``network_of``, which is ``service`` if empty.

    Without more arguments it is as a binding command is run.

    Args:
        code: the exit status it has to have, None for any.
    """
    with ExitStack() as stack:
        descriptors: tuple[int, ...] = ()
        if secret is not None:
            descriptors = (os.memfd_create("secret"),)
            stack.callback(os.close, descriptors[0])
            os.write(descriptors[0], secret)
            argv = tuple(word.replace(SECRET, f"/dev/fd/{descriptors[0]}") for word in argv)
        done = subprocess.run(
            _entering(node, service, *argv, network_of=network_of, user=user, environment=environment),
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    assert code is None or done.returncode == code, done
    return done


@contextmanager
def running(
    node: TestNode, service: str, *argv: str, network_of: str = "", environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """The same for a process that lasts, with what it says on one stream; the block's end ends it."""
    with subprocess.Popen(
        _entering(node, service, *argv, network_of=network_of, environment=environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # nsenter makes a child, which shall end with it
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _entering(
    node: TestNode,
    service: str,
    *argv: str,
    network_of: str = "",
    user: int = NOBODY,
    environment: Mapping[str, str] | None = None,
) -> list[str]:
    target, network = node.process_of(service), node.process_of(network_of or service)
    variables = {**_ENVIRONMENT, **(environment or {})}
    return [
        *("nsenter", f"--target={target}", "--mount", "--pid", f"--net=/proc/{network}/ns/net", "--root", "--wd", "--"),
        *("setpriv", f"--reuid={user}", f"--regid={user}", *_UNPRIVILEGED, "--"),
        *("env", "-i", *(f"{name}={value}" for name, value in variables.items()), *argv),
    ]


def tls_version(node: TestNode, service: str, port: int) -> str:
    """The version that a handshake with the service arrives at, its name verified against the node's authority."""
    context = ssl.create_default_context(cadata=node.cli("exec", service, "--", "cat", AUTHORITY).stdout)
    address = node.pod(service)["status"]["podIP"]
    with (
        node.entered(),
        socket.create_connection((address, port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=f"{service}.default.svc") as session,
    ):
        return session.version() or ""


def foreign_authority(node: TestNode, service: str) -> str:
    """The path in the container of the certificate of an authority that is not the node's."""
    path = "/tmp/foreign.crt"
    outside = Path(f"/proc/{node.process_of(service)}/root{path}")
    trustme.CA().cert_pem.write_to_path(outside)
    outside.chmod(0o644)
    return path


def eventually(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    """Ask until it holds; for questions that take a process each, so that asking is the pause."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
