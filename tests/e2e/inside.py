"""Processes inside a service's container, as a test wants them: another user, another pod's network, a secret.

``nanocloud exec`` runs a command as the service itself. A binding command runs as nobody and finds secrets behind file
descriptors; a client of a service runs in the network of its own pod. Here both come without an installation each.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from nodes import TestNode

SECRET = "<secret>"
"""Stands for the path of the secret in a command."""
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
            entering(node, service, *argv, network_of=network_of, user=user, environment=environment),
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    assert code is None or done.returncode == code, done
    return done


def entering(
    node: TestNode,
    service: str,
    *argv: str,
    network_of: str = "",
    user: int = NOBODY,
    environment: Mapping[str, str] | None = None,
) -> list[str]:
    """The command line that does it, for a process that a test ends itself."""
    target, network = node.process_of(service), node.process_of(network_of or service)
    variables = {**_ENVIRONMENT, **(environment or {})}
    return [
        *("nsenter", f"--target={target}", "--mount", "--pid", f"--net=/proc/{network}/ns/net", "--root", "--wd", "--"),
        *("setpriv", f"--reuid={user}", f"--regid={user}", *_UNPRIVILEGED, "--"),
        *("env", "-i", *(f"{name}={value}" for name, value in variables.items()), *argv),
    ]


def eventually(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    """Ask until it holds; for questions that take a process each, so that asking is the pause."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
