"""Whether an account that a binding made works, asked by the selected service's own ``verify_`` command.

It runs as binding commands do, by ``nanocloud exec --as-binding``, in the selected service's container. A secret goes
there through standard input into a file on the container's own tmpfs, which goes again; it is in no argument list.
"""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import attrs

from nanocloud.client.api import Api, core_path
from nanocloud.models.binding import VERIFY, companion
from nanocloud_dockyard.check.subject import BINDINGS

_FILE = "/dev/shm/nanocloud-check"  # noqa: S108  (in the container)
_RUN = f'umask 022; cat > {_FILE}; "$@"; code=$?; rm -f {_FILE}; exit $code'
_COMMAND = ("-c", "import sys; from nanocloud.cli.main import main; sys.exit(main())")
_SECONDS = 100
_ABSENT = (126, 127)


@attrs.frozen(kw_only=True)
class Account:
    """What one binding of the bundle under check made."""

    target: str
    command: str
    """``verify_<thing>``"""
    arguments: tuple[str, ...]
    secret: bytes = attrs.field(repr=False)

    def works(self, namespace: str) -> bool | None:
        """None where the service has no such command to ask."""
        words = ("exec", "--as-binding", "-i", "-n", namespace, self.target, "--", "/bin/sh", "-c", _RUN, "check")
        done = subprocess.run(
            (sys.executable, *_COMMAND, *words, f"{BINDINGS}/{self.command}", *self.arguments),
            input=self.secret,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
        return None if done.returncode in _ABSENT else done.returncode == 0


def accounts_of(server: Api, namespace: str, bundle: str) -> list[Account]:
    """Those of the bundle's completed bindings that can be asked about: with one secret argument at most."""
    found = []
    for binding in server.request("GET", f"/apis/nanocloud.io/v1/namespaces/{namespace}/bindings")["items"]:
        spec, status = binding["spec"], binding.get("status") or {}
        command = companion(spec["command"], VERIFY)
        if spec["bundle"] != bundle or spec.get("action") == "Revoke" or status.get("phase") != "Completed":
            continue
        if command is None:
            continue
        arguments, secrets = _arguments(server, namespace, spec.get("arguments") or [])
        if len(set(secrets)) <= 1:
            secret = secrets[0] if secrets else b""
            found.append(Account(target=spec["target"], command=command, arguments=arguments, secret=secret))
    return found


def _arguments(server: Api, namespace: str, given: Sequence[dict[str, Any]]) -> tuple[tuple[str, ...], list[bytes]]:
    words: list[str] = []
    secrets: list[bytes] = []
    for argument in given:
        reference = argument.get("secretKeyRef")
        if reference is None:
            words.append(argument.get("value") or "")
            continue
        data = server.request("GET", core_path(namespace, "secrets", reference["name"]))["data"]
        secrets.append(base64.b64decode(data[reference["key"]]))
        words.append(_FILE)
    return tuple(words), secrets
