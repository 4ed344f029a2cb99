"""A bundle's conditions, phase and message, from what was observed of it; pure."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from nanocloud.models.bundle import BundleCondition, BundlePhase
from nanocloud.models.meta import condition, condition_is_true, set_condition

if TYPE_CHECKING:
    from nanocloud.models.meta import Object

HOPELESS = frozenset(
    {"PortInUse", "VolumeFull", "ErrImagePull", "FailedMount", "CreateContainerError", "CreateContainerConfigError"}
)
"""Reasons of a waiting container that time alone does not mend."""
_CRASHES = 3
"""Restarts after which a container that does not stay up counts as failed."""


@attrs.frozen(kw_only=True)
class Obstacle:
    """Why the next condition does not hold yet."""

    reason: str
    message: str
    failed: bool = False
    """True: only a change by the user, or of the node, helps."""


def set_progress(
    bundle: Object, reached: list[BundleCondition], obstacle: Obstacle | None, *, stopped: bool, generation: int
) -> None:
    """Write conditions, phase, reason and message into ``bundle``'s status: what came of its spec of ``generation``.

    Each condition is True only while those before it are; the first that does not hold carries the obstacle.
    """
    status = bundle.setdefault("status", {})
    tell, blocked = partial(set_condition, bundle, generation=generation), False
    for kind in BundleCondition:
        if kind in reached and not blocked:
            tell(kind.value, True, reason=kind.value)
        elif not blocked:
            blocked = True
            why = obstacle or Obstacle(reason="Pending", message="")
            tell(kind.value, False, reason=why.reason, message=why.message)
        else:
            tell(kind.value, False, reason="Waiting", message="an earlier condition does not hold")
    status["phase"] = _phase(blocked, obstacle, stopped).value
    status["observedGeneration"] = generation
    for field in ("reason", "message"):
        value = getattr(obstacle, field) if obstacle is not None else ""
        if value:
            status[field] = value
        else:
            status.pop(field, None)


def _phase(blocked: bool, obstacle: Obstacle | None, stopped: bool) -> BundlePhase:
    if obstacle is not None and obstacle.failed:
        return BundlePhase.FAILED
    if stopped:
        return BundlePhase.STOPPED
    return BundlePhase.INSTALLING if blocked else BundlePhase.RUNNING


def pod_obstacle(pod: Object | None) -> Obstacle | None:
    """What keeps a pod from being ready; None when nothing does."""
    if pod is None:
        return Obstacle(reason="PodStarting", message="the pod is being made")
    if condition_is_true(pod, "Ready"):
        return None
    for status in (pod.get("status") or {}).get("containerStatuses") or []:
        found = _container_obstacle(status)
        if found is not None:
            return found
    why = condition(pod, "Ready") or {}
    return Obstacle(reason="PodNotReady", message=why.get("message") or "the service is not ready yet")


def _container_obstacle(status: dict[str, Any]) -> Obstacle | None:
    waiting = (status.get("state") or {}).get("waiting")
    last = (status.get("lastState") or {}).get("terminated")
    if waiting and waiting["reason"] in HOPELESS:
        return Obstacle(reason=waiting["reason"], message=waiting.get("message", ""), failed=True)
    if last and status.get("restartCount", 0) >= _CRASHES and not status.get("ready"):
        times = f"{last['exitCode']} ({last['reason']}), {status['restartCount']} times"
        message = f"container {status['name']} ended with {times}"
        if words := last.get("message"):
            message += f"; its last line: {words}"
        return Obstacle(reason="CrashLoopBackOff", message=message, failed=True)
    return None
