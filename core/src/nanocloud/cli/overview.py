"""All services in a table, or one in detail: what ``status`` prints.

The command that people type most: it lists everything in one request, and nothing here imports typer (see ``words``).
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from nanocloud.client.api import Api, bundles_path, core_path
from nanocloud.client.endpoint import find_endpoint
from nanocloud.errors import UsageError
from nanocloud.output import colour, dump, printable, table

_STYLES = ("table", "wide", "json", "yaml")
_COLOURS = {"Running": "green", "Failed": "red", "Stopped": "dim"}


def show(
    service: str | None = None,
    *,
    namespace: str | None = None,
    pods: bool = False,
    output: str = "table",
    watch: bool = False,
    curl: bool = False,
) -> None:
    """Print what ``nanocloud status`` was asked for."""
    if output not in _STYLES:
        raise UsageError(f"--output is {output!r}; allowed: {', '.join(_STYLES)}")
    server = Api(find_endpoint(), show=print if curl else None)
    if service is not None:
        _detail(server, namespace or "default", service, output)
        return
    path = core_path(namespace, "pods") if pods else bundles_path(namespace)
    page = server.request("GET", path)
    if output in ("json", "yaml"):
        print(dump(page, output))
    else:
        _print_rows(page["items"], pods, output == "wide")
    if watch:
        version = page["metadata"]["resourceVersion"]
        for kind, obj in server.watch(path, query={"resourceVersion": version}):
            if output in ("json", "yaml"):
                print(dump(obj, output))
            else:
                print(f"{kind.lower():9}{_row_text(obj, pods, output == 'wide')}")


def _print_rows(items: list[dict[str, Any]], pods: bool, wide: bool) -> None:
    if not items:
        print("no pods" if pods else "no services; install one with: nanocloud install SERVICE")
        return
    text = table(_headers(pods, wide), [_row(item, pods, wide) for item in items])
    head, *lines = text.splitlines()
    print(head)
    for item, line in zip(items, lines, strict=True):
        phase = (item.get("status") or {}).get("phase", "")
        print(line.replace(phase, colour(phase, _COLOURS[phase]), 1) if phase in _COLOURS else line)


def _headers(pods: bool, wide: bool) -> tuple[str, ...]:
    if pods:
        return ("NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "IP", "AGE")
    headers = ("NAMESPACE", "NAME", "SERVICE", "READY", "STATUS", "AGE")
    return (*headers, "IMAGE", "MESSAGE") if wide else (*headers, "MESSAGE")


def _row(item: dict[str, Any], pods: bool, wide: bool) -> tuple[object, ...]:
    meta, state = item["metadata"], item.get("status") or {}
    common = (meta.get("namespace", ""), meta["name"])
    old = age(meta.get("creationTimestamp"))
    if pods:
        containers = state.get("containerStatuses") or []
        ready = f"{sum(bool(c.get('ready')) for c in containers)}/{len(item['spec']['containers'])}"
        waiting = next(
            (c["state"]["waiting"]["reason"] for c in containers if "waiting" in (c.get("state") or {})), None
        )
        word = "Terminating" if meta.get("deletionTimestamp") else waiting or state.get("phase", "Pending")
        restarts = sum(int(c.get("restartCount", 0)) for c in containers)
        return (*common, ready, word, restarts, state.get("podIP", "<none>"), old)
    conditions = {entry["type"]: entry["status"] for entry in state.get("conditions") or []}
    phase = "Terminating" if meta.get("deletionTimestamp") else state.get("phase", "Pending")
    row = (*common, item["spec"]["service"], "yes" if conditions.get("Ready") == "True" else "no", phase, old)
    message = state.get("message", "")
    return (*row, state.get("image", ""), message) if wide else (*row, message)


def _row_text(item: dict[str, Any], pods: bool, wide: bool) -> str:
    return "   ".join(printable(cell) for cell in _row(item, pods, wide))


def _detail(server: Api, namespace: str, service: str, output: str) -> None:
    bundle = server.request("GET", bundles_path(namespace, service))
    if output in ("json", "yaml"):
        print(dump(bundle, output))
        return
    state = bundle.get("status") or {}
    query = {"fieldSelector": f"involvedObject.uid={bundle['metadata']['uid']}"}
    events = server.request("GET", core_path(namespace, "events"), query=query)["items"]
    facts = [
        ("Service", bundle["spec"]["service"]),
        ("Namespace", namespace),
        ("Phase", state.get("phase", "Pending")),
        ("Why", state.get("message", "")),
        ("Image", state.get("image", "")),
        ("Pod", state.get("pod", "")),
        ("Age", age(bundle["metadata"].get("creationTimestamp"))),
    ]
    for label, value in facts:
        if value:
            print(f"{label + ':':12}{printable(value)}")
    sources = state.get("optionSources") or {}
    options = [(name, value, sources.get(name, "")) for name, value in sorted((state.get("options") or {}).items())]
    _section("Options", ("NAME", "VALUE", "FROM"), options)
    _section("Services", ("OPTION", "SERVICE"), sorted((state.get("services") or {}).items()))
    bindings = [
        (
            b["command"],
            b["target"],
            b.get("phase", ""),
            b.get("attempts", 0),
            b.get("exitCode", ""),
            took(b.get("startedAt"), b.get("finishedAt")),
            age(b.get("finishedAt")),
            b.get("message", ""),
        )
        for b in state.get("bindings") or []
    ]
    _section("Bindings", ("COMMAND", "IN", "STATUS", "ATTEMPTS", "EXIT", "TOOK", "AGE", "MESSAGE"), bindings)
    conditions = [
        (c["type"], c["status"], c.get("reason", ""), age(c.get("lastTransitionTime")), c.get("message", ""))
        for c in state.get("conditions") or []
    ]
    _section("Conditions", ("TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"), conditions)
    recent = sorted(events, key=happened)[-8:]
    rows = [(age(e.get("lastTimestamp")), e.get("type", ""), e.get("reason", ""), e.get("message", "")) for e in recent]
    _section("Events", ("AGE", "TYPE", "REASON", "MESSAGE"), rows)


def happened(event: dict[str, Any]) -> tuple[str, int]:
    """Orders events: by their last time, and within a second by the order in which they were written."""
    return event.get("lastTimestamp") or "", int(event["metadata"]["resourceVersion"])


def _section(title: str, headers: tuple[str, ...], rows: Any) -> None:
    if rows:
        print(f"\n{colour(title, 'bold')}")
        for line in table(headers, rows).splitlines():
            print(f"  {line}")


def took(start: str | None, end: str | None) -> str:
    """Time between two RFC 3339 stamps, in whole seconds."""
    if not start or not end:
        return ""
    return f"{round((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())}s"


def age(stamp: str | None) -> str:
    """Time since an RFC 3339 stamp: ``42s``, ``5m``, ``3h``, ``2d``."""
    if not stamp:
        return ""
    seconds = max(0, int(time.time() - datetime.fromisoformat(stamp).astimezone(UTC).timestamp()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size * 2:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
