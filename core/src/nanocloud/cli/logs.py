"""``logs`` and ``events``."""

from __future__ import annotations

import sys
import time
from datetime import datetime
from typing import Annotated, Any

import typer

from nanocloud.cli.options import Curl, Namespace, Service, api, parse_duration
from nanocloud.cli.overview import age, happened
from nanocloud.cli.remote import pod_of
from nanocloud.client.api import core_path
from nanocloud.errors import UsageError
from nanocloud.output import printable, table

_LEVELS = ("Normal", "Warning")


def logs(
    service: Service,
    namespace: Namespace = "default",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing.")] = False,
    tail: Annotated[int | None, typer.Option(help="Only the last lines.", min=0)] = None,
    since: Annotated[str | None, typer.Option(help="Only newer than this: 5m, 2h.")] = None,
    previous: Annotated[bool, typer.Option("--previous", "-p", help="Of the run before the present one.")] = False,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="Begin lines with their time.")] = False,
    container: Annotated[str | None, typer.Option("--container", "-c", help="Of this container.")] = None,
    curl: Curl = False,
) -> None:
    """Print a service's log."""
    query: dict[str, str] = {}
    for name, wanted in (("follow", follow), ("previous", previous), ("timestamps", timestamps)):
        if wanted:
            query[name] = "true"
    if tail is not None:
        query["tailLines"] = str(tail)
    if since is not None:
        query["sinceSeconds"] = str(max(1, round(parse_duration(since))))
    if container:
        query["container"] = container
    for line in api(curl=curl).stream(core_path(namespace, "pods", pod_of(service), "log"), query=query):
        sys.stdout.buffer.write(line)
        if follow:
            sys.stdout.buffer.flush()
    sys.stdout.buffer.flush()


def events(
    bundle: Annotated[str | None, typer.Option("--bundle", "-b", help="Only of this service.")] = None,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Only of this namespace.")] = None,
    since: Annotated[str | None, typer.Option(help="Only newer than this: 5m, 2h.")] = None,
    level: Annotated[str | None, typer.Option(help="Normal or Warning.")] = None,
    reason: Annotated[list[str] | None, typer.Option(help="Only these reasons; may be repeated.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many, the newest.", min=1)] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on showing new ones.")] = False,
    curl: Curl = False,
) -> None:
    """Show what happened."""
    if level is not None and level.capitalize() not in _LEVELS:
        raise UsageError(f"--level is {level!r}; allowed: {', '.join(_LEVELS)}")
    oldest = time.time() - parse_duration(since) if since else 0.0
    wanted = {name.lower() for name in reason or ()}
    server = api(curl=curl)
    query = {"fieldSelector": f"type={level.capitalize()}"} if level else {}

    def fits(event: dict[str, Any]) -> bool:
        about = event.get("involvedObject") or {}
        return (
            (bundle is None or about.get("name") in (bundle, f"{bundle}-0"))
            and (not wanted or event.get("reason", "").lower() in wanted)
            and _seen(event) >= oldest
        )

    page = server.request("GET", core_path(namespace, "events"), query=query)
    found = sorted((event for event in page["items"] if fits(event)), key=happened)[-limit:]
    if found or not follow:
        typer.echo(table(("AGE", "TYPE", "REASON", "OBJECT", "MESSAGE"), [_row(event) for event in found]))
    if follow:
        version = page["metadata"]["resourceVersion"]
        for kind, event in server.watch(core_path(namespace, "events"), query={**query, "resourceVersion": version}):
            if kind in ("ADDED", "MODIFIED") and fits(event):
                typer.echo("   ".join(printable(cell) for cell in _row(event)))


def _seen(event: dict[str, Any]) -> float:
    stamp = event.get("lastTimestamp") or event["metadata"].get("creationTimestamp")
    return datetime.fromisoformat(stamp).timestamp() if stamp else 0.0


def _row(event: dict[str, Any]) -> tuple[object, ...]:
    about = event.get("involvedObject") or {}
    subject = f"{about.get('kind', '').lower()}/{about.get('name', '')}"
    times = f" (x{event['count']})" if event.get("count", 1) > 1 else ""
    return (
        age(event.get("lastTimestamp")),
        event.get("type", ""),
        event.get("reason", ""),
        subject,
        event.get("message", "") + times,
    )
