"""What the kubelet observed of a pod, and its Kubernetes ``status``; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from nanocloud.models.meta import parse_time, timestamp
from nanocloud.providers.runtime import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nanocloud.models.meta import Object
    from nanocloud.providers.network import IPAddress
    from nanocloud.providers.runtime import ContainerId

ID_SCHEME = "nanocloud://"
_OUT_OF_MEMORY = "OOMKilled"


@attrs.define
class ContainerObservation:
    """One container over its restarts."""

    name: str
    image: str
    restart_count: int = 0
    container: ContainerId | None = None
    image_id: str = ""
    started_at: float | None = None
    """None while it does not run."""
    ready: bool = False
    waiting: tuple[str, str] = ("ContainerCreating", "")
    """Reason and message; shown while it does not run."""
    last_exit: ExitStatus | None = None
    last_words: str = ""
    """The last line that a failed run logged."""
    last_started_at: float | None = None


@attrs.define
class PodObservation:
    containers: list[ContainerObservation]
    addresses: Sequence[IPAddress] = ()
    started_at: float | None = None


def pod_status(pod: Object, seen: PodObservation, *, now: float) -> dict[str, Any]:
    """The ``status`` to store; times of conditions that did not change are kept from the pod."""
    running = [c for c in seen.containers if c.started_at is not None]
    all_ready = len(running) == len(seen.containers) and all(c.ready for c in running)
    not_ready = [c.name for c in seen.containers if not (c.started_at is not None and c.ready)]
    status: dict[str, Any] = {
        "phase": "Running" if running or any(c.restart_count for c in seen.containers) else "Pending",
        "conditions": _conditions(
            pod,
            {
                "PodScheduled": (True, "", ""),
                "Initialized": (True, "", ""),
                "ContainersReady": _readiness(all_ready, not_ready),
                "Ready": _readiness(all_ready, not_ready),
            },
            now,
        ),
        "containerStatuses": [_container(c) for c in seen.containers],
        "qosClass": "BestEffort",
        "hostIP": "127.0.0.1",
    }
    if seen.started_at is not None:
        status["startTime"] = timestamp(seen.started_at)
    if seen.addresses:
        status["podIP"] = str(seen.addresses[0])
        status["podIPs"] = [{"ip": str(address)} for address in seen.addresses]
    return status


def remember(seen: ContainerObservation, stored: dict[str, Any]) -> None:
    """Take over what an earlier life of the server wrote of the container and nobody else can tell."""
    seen.restart_count = int(stored.get("restartCount", 0))
    ended = (stored.get("lastState") or {}).get("terminated")
    if ended:
        seen.last_exit = ExitStatus(
            code=int(ended["exitCode"]),
            finished_at=parse_time(ended.get("finishedAt")) or 0.0,
            out_of_memory=ended.get("reason") == _OUT_OF_MEMORY,
        )
        seen.last_started_at, seen.last_words = parse_time(ended.get("startedAt")), ended.get("message", "")


def _readiness(ready: bool, missing: list[str]) -> tuple[bool, str, str]:
    if ready:
        return True, "", ""
    return False, "ContainersNotReady", f"containers with unready status: [{' '.join(missing)}]"


def _conditions(pod: Object, wanted: dict[str, tuple[bool, str, str]], now: float) -> list[dict[str, Any]]:
    before = {c["type"]: c for c in (pod.get("status") or {}).get("conditions") or []}
    conditions = []
    for kind, (holds, reason, message) in wanted.items():
        entry: dict[str, Any] = {"type": kind, "status": "True" if holds else "False"}
        old = before.get(kind, {})
        same = old.get("status") == entry["status"]
        entry["lastTransitionTime"] = old.get("lastTransitionTime") if same else timestamp(now)
        if reason:
            entry |= {"reason": reason, "message": message}
        conditions.append(entry)
    return conditions


def _container(seen: ContainerObservation) -> dict[str, Any]:
    state: dict[str, Any]
    if seen.started_at is not None:
        state = {"running": {"startedAt": timestamp(seen.started_at)}}
    else:
        reason, message = seen.waiting
        state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
    status: dict[str, Any] = {
        "name": seen.name,
        "image": seen.image,
        "imageID": seen.image_id,
        "ready": seen.started_at is not None and seen.ready,
        "started": seen.started_at is not None,
        "restartCount": seen.restart_count,
        "state": state,
        "lastState": {},
    }
    if seen.container is not None:
        status["containerID"] = ID_SCHEME + seen.container
    if seen.last_exit is not None:
        terminated: dict[str, Any] = {
            "exitCode": seen.last_exit.code,
            "reason": _ended(seen.last_exit),
            "finishedAt": timestamp(seen.last_exit.finished_at),
        }
        if seen.last_words:
            terminated["message"] = seen.last_words
        if seen.last_started_at is not None:
            terminated["startedAt"] = timestamp(seen.last_started_at)
        status["lastState"] = {"terminated": terminated}
    return status


def _ended(exit_status: ExitStatus) -> str:
    if exit_status.out_of_memory:
        return _OUT_OF_MEMORY
    return "Completed" if exit_status.code == 0 else "Error"
