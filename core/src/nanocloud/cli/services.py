"""``install``, ``uninstall``, ``start``, ``stop``, ``restart``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from nanocloud.cli import plans, prompts
from nanocloud.cli.follow import FailedError, wait_until
from nanocloud.cli.options import Curl, Namespace, Service, api, parse_duration
from nanocloud.client.api import Api, ApiError, bundles_path
from nanocloud.errors import NanocloudError, UsageError

Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done.")]
Timeout = Annotated[str, typer.Option("--timeout", help="How long to wait: 90s, 10m.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show the plan; exit status 2 when it changes anything, 0 when nothing.")
]
_SCHEMES = {
    **dict.fromkeys(("80", "3000", "8000", "8008", "8080", "8081", "8888", "9000"), "http"),
    **dict.fromkeys(("443", "8443", "8448"), "https"),
}
_MERGE = "application/merge-patch+json"


def install(
    service: Annotated[str, typer.Argument(help="A service of the catalogue.", show_default=False)],
    namespace: Namespace = "default",
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="KEY=VALUE; may be repeated.", show_default=False)
    ] = None,
    option_file: Annotated[
        list[str] | None,
        typer.Option(
            "--option-file", help="KEY=FILE: the value is what FILE holds; may be repeated.", show_default=False
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="What to call it, to have two of one service.", show_default=False)
    ] = None,
    image: Annotated[str | None, typer.Option(help="Image reference instead of the catalogue's.")] = None,
    force_bindings: Annotated[bool, typer.Option("--force-bindings", help="Run completed bindings once more.")] = False,
    no_deps: Annotated[bool, typer.Option("--no-deps", help="Refuse instead of installing selected services.")] = False,
    dry_run: DryRun = False,
    output: plans.Output = "text",
    wait: Wait = True,
    timeout: Timeout = "10m",
    curl: Curl = False,
) -> int:
    """Install a service and everything it needs: database, credentials, TLS, volumes, network."""
    limit, name = parse_duration(timeout), name or service
    spec: dict[str, Any] = {"service": service, "options": parse_options(option or [], option_file or [])}
    if image:
        spec["image"] = image
    if no_deps:
        spec["deps"] = False
    if force_bindings:
        import time

        spec["forceBindings"] = str(int(time.time()))
    bundle = {
        "apiVersion": "nanocloud.io/v1",
        "kind": "Bundle",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
    plans.check_output(output)
    server = api(curl=curl)
    if dry_run:
        return plans.show(_plan(server, bundle), output)
    created = _create(server, bundle)
    if not wait:
        typer.echo(f"{name} is being installed; see: nanocloud status {name}")
        return 0
    if not (created or server.request("GET", bundles_path(namespace, service))["spec"].get("start", True)):
        wait_until(server, namespace, service, "Stopped", limit)
        typer.echo(f"{service} is changed; it is stopped")
        return 0
    try:
        wait_until(server, namespace, name, "Ready", limit)
    except FailedError:
        if created:
            _roll_back(server, namespace, name)
        raise
    _say_ready(server, namespace, name)
    return 0


def parse_options(words: list[str], files: Sequence[str] = ()) -> dict[str, str]:
    """``KEY=VALUE`` words and ``KEY=FILE`` words as a mapping; a name twice is an error.

    Raises:
        UsageError: a word of another form, or a file that cannot be read as text.
    """
    options: dict[str, str] = {}
    for flag, word in [*(("--option", word) for word in words), *(("--option-file", word) for word in files)]:
        key, equals, value = word.partition("=")
        if not equals or not key or not (value or flag == "--option"):
            raise UsageError(f"{flag} {word!r} is not KEY={'FILE' if flag == '--option-file' else 'VALUE'}")
        if key in options:
            raise UsageError(f"option {key} is given twice")
        options[key] = _content(key, value) if flag == "--option-file" else value
    return options


def _content(key: str, file: str) -> str:
    """The text of a file without its final newline: how a secret stays out of the process list."""
    try:
        return Path(file).read_text().removesuffix("\n")
    except OSError as exc:
        raise UsageError(f"--option-file {key}: cannot read {file}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise UsageError(f"--option-file {key}: {file} is not text") from exc


def _create(server: Api, bundle: dict[str, Any]) -> bool:
    """Plan first, so that what cannot be is refused before anything is stored; then create or change the Bundle."""
    namespace, name = bundle["metadata"]["namespace"], bundle["metadata"]["name"]
    if server.is_live:
        plans.tell_what_stays_behind(_plan(server, bundle)[-1])
    try:
        server.request("POST", bundles_path(namespace), body=bundle)
    except ApiError as exc:
        if exc.code != 409:
            raise
    else:
        return True
    # The service is there: new options are laid over those it has. From now on it is the user's own, and stays when
    # the service that it was once installed for goes.
    notes = {"annotations": {"nanocloud.io/installed-for": None}}
    server.request(
        "PATCH",
        bundles_path(namespace, name),
        body={"metadata": notes, "spec": bundle["spec"]},
        content_type=_MERGE,
    )
    return False


def _roll_back(server: Api, namespace: str, service: str) -> None:
    """A first installation that failed leaves the node as it was."""
    server.request("DELETE", bundles_path(namespace, service))
    wait_until(server, namespace, service, "Gone", 120.0, quiet=True)
    typer.echo(f"{service} was removed again; nothing is left of it", err=True)


def _say_ready(server: Api, namespace: str, service: str) -> None:
    bundle = server.request("GET", bundles_path(namespace, service))
    options = (bundle.get("status") or {}).get("options") or {}
    typer.echo(f"{service} is ready")
    for url in published(options):
        typer.echo(f"  {url}")


def published(options: dict[str, str]) -> list[str]:
    """Where published TCP ports answer on this node, from the resolved ``port_<n>`` options.

    An address of a port by which web servers are known in their container is a URL; of others nothing is known.
    """
    found = []
    for name, value in sorted(options.items()):
        if name.startswith("port_") and "->" in value and not value.endswith("/udp"):
            outside, _, inside = value.partition("->")
            host, _, port = outside.rpartition(":")
            address = f"{host if host not in ('', '0.0.0.0') else '127.0.0.1'}:{port}"  # noqa: S104
            scheme = _SCHEMES.get(inside.partition("/")[0])
            found.append(f"{scheme}://{address}/" if scheme else address)
    return found


def _plan(server: Api, bundle: dict[str, Any]) -> list[dict[str, Any]]:
    """Plans of the services to be added, then of the bundle with the given options laid over those it has.

    Required options that are missing are asked for and put into ``bundle``.
    """
    path, spec = bundles_path(bundle["metadata"]["namespace"], bundle["metadata"]["name"], "plan"), bundle["spec"]
    while True:
        try:
            answer = server.request("POST", path, body=bundle, content_type=_MERGE)
        except ApiError as exc:
            missing = prompts.missing_options(exc)
            if not missing or not set(missing).isdisjoint(spec["options"]):
                raise
            spec["options"] |= prompts.supply(server, spec["service"], spec.get("image"), missing)
        else:
            planned: list[dict[str, Any]] = answer["status"]["bundles"]
            return planned


def uninstall(
    service: Service,
    namespace: Namespace = "default",
    keep_services: Annotated[
        bool, typer.Option("--keep-services", help="Keep services that were installed for this one.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Also when other services use it.")] = False,
    dry_run: DryRun = False,
    output: plans.Output = "text",
    wait: Wait = True,
    timeout: Timeout = "5m",
    curl: Curl = False,
) -> int:
    """Remove a service with its data, and services that were installed only for it."""
    limit = parse_duration(timeout)
    plans.check_output(output)
    server = api(curl=curl)
    if dry_run:
        path = bundles_path(namespace, service, "plan", "uninstall")
        planned = server.request("POST", path, body={"keepServices": keep_services})["status"]["bundles"]
        _refuse_if_used(service, planned[0]["usedBy"], force)
        return plans.show(planned, output)
    if server.is_live:
        server.request("GET", bundles_path(namespace, service))
        _refuse_if_used(service, _used_by(server, namespace, service), force)
        if keep_services:
            notes = {"metadata": {"annotations": {"nanocloud.io/keep-services": "true"}}}
            path = bundles_path(namespace, service)
            server.request("PATCH", path, body=notes, content_type=_MERGE)
    server.request("DELETE", bundles_path(namespace, service))
    if wait:
        wait_until(server, namespace, service, "Gone", limit)
        typer.echo(f"{service} is gone")
    else:
        typer.echo(f"{service} is being removed")
    return 0


def _refuse_if_used(service: str, users: list[str], force: bool) -> None:
    if users and not force:
        raise NanocloudError(
            f"{service} is used by {', '.join(users)}", hint=f"uninstall {users[0]} first, or add --force"
        )


def _used_by(server: Api, namespace: str, service: str) -> list[str]:
    found = server.request("GET", bundles_path(namespace))["items"]
    return [
        bundle["metadata"]["name"]
        for bundle in found
        if service in ((bundle.get("status") or {}).get("services") or {}).values()
        and not bundle["metadata"].get("deletionTimestamp")
    ]


def start(
    service: Service, namespace: Namespace = "default", wait: Wait = True, timeout: Timeout = "5m", curl: Curl = False
) -> None:
    """Start a stopped service."""
    _act("start", "Ready", service, namespace, wait, timeout, curl)


def stop(
    service: Service, namespace: Namespace = "default", wait: Wait = True, timeout: Timeout = "5m", curl: Curl = False
) -> None:
    """Stop a service; its data, address and credentials stay."""
    _act("stop", "Stopped", service, namespace, wait, timeout, curl)


def restart(
    service: Service, namespace: Namespace = "default", wait: Wait = True, timeout: Timeout = "5m", curl: Curl = False
) -> None:
    """Restart a service."""
    _act("restart", "Ready", service, namespace, wait, timeout, curl)


def _act(action: str, goal: str, service: str, namespace: str, wait: bool, timeout: str, curl: bool) -> None:
    limit = parse_duration(timeout)
    server = api(curl=curl)
    server.request("POST", bundles_path(namespace, service, "actions", action), body={})
    if wait:
        wait_until(server, namespace, service, goal, limit)
        typer.echo(f"{service} is {goal.lower()}")
    else:
        typer.echo(f"{service}: {action} was asked for")
