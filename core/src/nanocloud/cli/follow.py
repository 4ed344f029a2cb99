"""Waiting for a service with progress: a spinner on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from nanocloud.client.api import Api, bundles_path
from nanocloud.errors import NanocloudError
from nanocloud.output import on_terminal, printable

_GONE: dict[str, Any] = {"metadata": {}}


class FailedError(NanocloudError):
    """The service cannot get there by itself."""


class SlowError(NanocloudError):
    """It took longer than the caller wants to wait."""


def wait_until(
    server: Api, namespace: str, service: str, goal: str, limit_seconds: float, *, quiet: bool = False
) -> None:
    """Follow the bundle until ``Ready``, ``Stopped`` or ``Gone``; tell each new state of it and of what it waits for.

    Raises:
        FailedError: it failed; says why, as the node says it.
        SlowError: the time is over; the node goes on.
    """
    path, deadline = bundles_path(namespace), time.monotonic() + limit_seconds
    page = server.request("GET", path)
    known = {item["metadata"]["name"]: item for item in page["items"]}
    needs = _needs(known.get(service))

    def is_done() -> bool:
        if goal == "Gone" and any((known.get(name) or _GONE)["metadata"].get("deletionTimestamp") for name in needs):
            return False  # services that were installed only for it go with it
        return _reached(known.get(service), goal, service)

    with _progress(quiet) as tell:
        if is_done():
            return
        query = {
            "resourceVersion": page["metadata"]["resourceVersion"],
            "timeoutSeconds": str(max(1, int(limit_seconds))),
        }
        for kind, bundle in server.watch(path, query=query):
            name = bundle["metadata"]["name"]
            needs |= _needs(known.get(service))
            concerned = name == service or name in needs
            known[name] = bundle
            if kind == "DELETED":
                known.pop(name)
            if concerned and kind != "DELETED":
                tell(name, _state(bundle))
            if is_done():
                return
            if time.monotonic() > deadline:
                break
    status = (known.get(service) or {}).get("status") or {}
    why = printable(status.get("message") or "no reason known")
    raise SlowError(
        f"{service} is not {goal.lower()} after {limit_seconds:g} s: {why}",
        hint=f"it goes on; see: nanocloud status {service}, nanocloud events --bundle {service}",
    )


def _reached(bundle: dict[str, Any] | None, goal: str, service: str) -> bool:
    if bundle is None:
        if goal == "Gone":
            return True
        raise FailedError(f"{service} was removed")
    status, meta = bundle.get("status") or {}, bundle["metadata"]
    if goal == "Gone":
        return False
    if status.get("observedGeneration", 0) < meta.get("generation", 1):
        return False
    wanted_restart = (meta.get("annotations") or {}).get("nanocloud.io/restartedAt", "")
    if wanted_restart and status.get("restartedAt", "") != wanted_restart:
        return False
    if status.get("phase") == "Failed":
        raise FailedError(f"{service}: {status.get('reason')}: {printable(status.get('message', ''))}")
    if goal == "Stopped":
        return bool(status.get("phase") == "Stopped" and status.get("reason") == "Stopped")
    conditions = {entry["type"]: entry["status"] for entry in status.get("conditions") or []}
    return conditions.get("Ready") == "True"


def _needs(bundle: dict[str, Any] | None) -> set[str]:
    """The services that a bundle waits for: those it selected, and any value of its options that names one."""
    if bundle is None:
        return set()
    selected = ((bundle.get("status") or {}).get("services") or {}).values()
    return {*selected, *(bundle["spec"].get("options") or {}).values()}


def _state(bundle: dict[str, Any]) -> str:
    status = bundle.get("status") or {}
    if bundle["metadata"].get("deletionTimestamp"):
        return "being removed"
    if status.get("phase") == "Running":
        return "ready"
    return printable(status.get("message") or status.get("reason") or status.get("phase") or "waiting")


@contextmanager
def _progress(quiet: bool) -> Iterator[Any]:
    """Gives ``tell(name, state)``: each new state once."""
    said: dict[str, str] = {}
    if quiet or not on_terminal():

        def plain(name: str, state: str) -> None:
            if not quiet and said.get(name) != state:
                said[name] = state
                typer.echo(f"{name}: {state}")

        yield plain
        return
    spinner = _Spinner()
    try:

        def lively(name: str, state: str) -> None:
            if said.get(name) != state:
                said[name] = state
                spinner.show(f"{name}: {state}", keep=state == "ready")

        yield lively
    finally:
        spinner.stop()


class _Spinner:
    """One line that moves while a command waits; finished lines stay above it."""

    def __init__(self) -> None:
        self._text, self._over = "", threading.Event()
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._turn, daemon=True)
        self._thread.start()

    def show(self, text: str, *, keep: bool) -> None:
        if keep:
            sys.stdout.write(f"\r\x1b[K\x1b[32m✓\x1b[0m {text}\n")
            text = ""
        self._text = text

    def _turn(self) -> None:
        frames = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
        index = 0
        while not self._over.wait(0.1):
            index += 1
            elapsed = time.monotonic() - self._began
            sys.stdout.write(f"\r\x1b[K{frames[index % len(frames)]} {self._text[:100]} ({elapsed:.0f} s)")
            sys.stdout.flush()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        sys.stdout.write("\r\x1b[K")
        sys.stdout.flush()
