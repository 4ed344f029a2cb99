"""``bundle export`` and ``bundle import``: a service's profile as a file, and the service from it again."""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from nanocloud.cli.follow import wait_until
from nanocloud.cli.inputs import read_input
from nanocloud.cli.options import Curl, Namespace, Service, api, parse_duration
from nanocloud.cli.services import parse_options
from nanocloud.client.api import Api, bundles_path
from nanocloud.errors import NanocloudError, UsageError
from nanocloud.output import printable

_MAX_FILE_BYTES = 3 * 1024 * 1024


def export(
    service: Service,
    namespace: Namespace = "default",
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="The file to write; - is standard output. SERVICE.profile.tar without it."),
    ] = None,
    secrets: Annotated[
        bool, typer.Option("--secrets", help="With its secrets, encrypted under the node's key.")
    ] = False,
    curl: Curl = False,
) -> None:
    """Write a service's profile to a file. It holds options, services and bindings; import makes the service again."""
    file = output or f"{service}.profile.tar"
    if file != "-" and Path(file).exists():
        raise UsageError(f"{file} exists already; name another file with --output")
    query = {"includeSecrets": "true"} if secrets else None
    archive = api(curl=curl).content("POST", bundles_path(namespace, service, "exportProfile"), query=query)
    if file == "-":
        sys.stdout.buffer.write(archive)
        return
    _write(file, archive)
    held = "with its secrets, encrypted: only this node can read them" if secrets else "without secrets"
    typer.echo(f"{file}: the profile of {service}, {held}")


def import_(
    file: Annotated[str, typer.Argument(help="What export wrote; - is standard input.", show_default=False)],
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the service; without it, the exported one.")
    ] = None,
    namespace: Namespace = "default",
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="KEY=VALUE instead of what the export says; may be repeated."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done.")] = True,
    timeout: Annotated[str, typer.Option("--timeout", help="How long to wait: 90s, 10m.")] = "10m",
    curl: Curl = False,
) -> None:
    """Make a service from an exported profile. Options, and passwords if it holds them, are the same."""
    limit, given, archive = parse_duration(timeout), parse_options(option or []), read_input(file, _MAX_FILE_BYTES)
    service, server = name or _name_in(archive, file), api(curl=curl)
    spec: dict[str, Any] = {"archive": base64.b64encode(archive).decode()}
    if given:
        spec["options"] = given
    made = server.request("POST", bundles_path(namespace, service, "importProfile"), body={"spec": spec})
    if anew := made["status"]["decidedAnew"]:
        typer.echo(f"{service}: the export holds no secrets; decided anew: {', '.join(map(printable, anew))}")
    if not wait:
        typer.echo(f"{service} is being installed; see: nanocloud status {service}")
        return
    _follow(server, namespace, service, limit)


def _follow(server: Api, namespace: str, service: str, limit: float) -> None:
    bundle = server.request("GET", bundles_path(namespace, service))
    goal = "Ready" if bundle["spec"].get("start", True) else "Stopped"
    wait_until(server, namespace, service, goal, limit)
    typer.echo(f"{service} is {goal.lower()}")


def _write(file: str, data: bytes) -> None:
    """A new file that only its owner may read."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(data)
        except BaseException:
            Path(file).unlink(missing_ok=True)
            raise
    except OSError as exc:
        raise NanocloudError(f"cannot write {file}: {exc.strerror}") from exc


def _name_in(archive: bytes, file: str) -> str:
    """The name that the export was of, to know what to ask the node for; the node alone checks the file."""
    from nanocloud.planning.archive import unpack
    from nanocloud.planning.export import MANIFEST, PROFILE

    try:
        found = json.loads(unpack(archive, (MANIFEST, PROFILE))[PROFILE])["metadata"]["name"]
    except (ValueError, LookupError, TypeError):
        found = None
    if not isinstance(found, str) or not found:
        raise UsageError(f"{file} does not say which service it is of; it is no exported profile")
    return found
