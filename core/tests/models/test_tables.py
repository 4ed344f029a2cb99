"""Rows as kubectl shows them."""

from __future__ import annotations

from typing import Any

import pytest

from nanocloud.models.builtin import builtin_registry
from nanocloud.models.core import EVENT, PERSISTENT_VOLUME_CLAIM
from nanocloud.models.kinds import ResourceKind
from nanocloud.models.pod import POD
from nanocloud.models.tables import cells, columns_of, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (-0.5, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (150, "2m30s"),
        (601, "10m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 60, "3h1m"),
        (20 * 3600, "20h"),
        (3 * 86400 + 7200, "3d2h"),
        (30 * 86400, "30d"),
        (800 * 86400, "2y70d"),
        (9 * 365 * 86400, "9y"),
    ],
)
def test_durations_are_worded_as_kubectl_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def row(kind: ResourceKind, obj: Any) -> dict[str, Any]:
    columns = columns_of(kind)
    return dict(zip((column.name for column in columns), cells(columns, obj), strict=True))


def pod(*states: Any, phase: str = "Running", ready: bool = True, **meta: Any) -> Any:
    statuses = [
        {"name": f"c{i}", "state": state, "ready": ready and "running" in state} for i, state in enumerate(states)
    ]
    return {
        "metadata": {"name": "p"} | meta,
        "spec": {"containers": [{"name": f"c{i}"} for i in range(len(states))]},
        "status": {"phase": phase, "containerStatuses": statuses},
    }


RUNNING: Any = {"running": {}}
DONE = {"terminated": {"exitCode": 0, "reason": "Completed"}}


@pytest.mark.parametrize(
    ("obj", "ready", "status"),
    [
        (pod(RUNNING), "1/1", "Running"),
        (pod({"waiting": {"reason": "CrashLoopBackOff"}}), "0/1", "CrashLoopBackOff"),
        (pod({"terminated": {"exitCode": 3, "reason": "Error"}}, phase="Failed"), "0/1", "Error"),
        (pod({"terminated": {"exitCode": 3}}, phase="Failed"), "0/1", "ExitCode:3"),
        (pod(DONE, phase="Succeeded"), "0/1", "Completed"),
        (pod(DONE, RUNNING), "1/2", "NotReady"),
        (pod(RUNNING, deletionTimestamp="2026-01-01T00:00:00Z"), "1/1", "Terminating"),
        ({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}}, "0/1", "Pending"),
    ],
)
def test_the_status_of_a_pod(obj: Any, ready: str, status: str) -> None:
    shown = row(POD, obj)
    assert (shown["Ready"], shown["Status"]) == (ready, status)


def test_init_containers_come_first() -> None:
    obj = pod({"waiting": {"reason": "PodInitializing"}}, phase="Pending")
    obj["status"]["initContainerStatuses"] = [{"name": "a", "state": DONE}, {"name": "b", "state": RUNNING}]
    assert row(POD, obj)["Status"] == "Init:1/2"


def test_events_and_claims() -> None:
    event = {"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p"}, "type": "Normal", "reason": "R"}
    shown = row(EVENT, event | {"message": "m\n"})
    assert (shown["Object"], shown["Message"], shown["Count"]) == ("pod/p", "m", 1)
    claim = {"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    assert row(PERSISTENT_VOLUME_CLAIM, claim)["Access Modes"] == "RWO"


@pytest.mark.parametrize("kind", list(builtin_registry()), ids=lambda kind: kind.kind)
def test_a_bare_object_of_every_kind_has_a_row(kind: ResourceKind) -> None:
    obj = {"metadata": {"name": "x"}} | {"spec": {}}
    shown = row(kind, obj)
    assert shown["Name"] == "x"
    assert all(isinstance(value, (str, int)) for value in shown.values())
