"""Runs Binding objects: each once it can, until it succeeded, a few times if it fails.

A Binding is run when its target's pod is ready. A run that a crash interrupted is run again, so commands are
idempotent. After the last attempt the Binding stays ``Failed`` until its controller makes it anew.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Literal

import attrs
import trio

from nanocloud.bindings import mask
from nanocloud.errors import NotFoundError
from nanocloud.kubelet.status import ID_SCHEME
from nanocloud.models.binding import BINDING, BindingPhase, spec_of
from nanocloud.models.bundle import BUNDLE, BUNDLE_LABEL
from nanocloud.models.core import SECRET
from nanocloud.models.meta import (
    condition_is_true,
    is_deleting,
    labels_of,
    name_of,
    namespace_of,
    parse_time,
    timestamp,
    uid_of,
)
from nanocloud.models.pod import POD
from nanocloud.objects import ObjectNotFoundError, WatchType
from nanocloud.objects.reflector import reflect
from nanocloud.observability.metrics import binding_runs
from nanocloud.providers.binding import BindingArgument, BindingCall, BindingResult
from nanocloud.providers.runtime import ContainerId
from nanocloud.workqueue import WorkQueue

if TYPE_CHECKING:
    from nanocloud.kubelet.parts import KubeletParts
    from nanocloud.models.binding import BindingSpec, BindingValue
    from nanocloud.models.meta import Object
    from nanocloud.objects import WatchEvent
    from nanocloud.providers.binding import BindingOutcome

MAX_ATTEMPTS = 5
_OUTPUT_LIMIT = 16 * 1024  # of what the object keeps; the provider's own limit is larger
_EVENTS = {
    BindingResult.COMPLETED: "BindingCompleted",
    BindingResult.FAILED: "BindingFailed",
    BindingResult.TIMEOUT: "BindingTimeout",
}
_Key = tuple[str, str]
_Secrets = dict[str, dict[str, str]]
"""Name of a Secret, key, value."""


class BindingsWorker:
    """Runs the bindings of the node."""

    name = "bindings"

    def __init__(self, parts: KubeletParts) -> None:
        self._parts = parts
        self._queue: WorkQueue[_Key] = WorkQueue("bindings")
        self._by_target: defaultdict[_Key, set[_Key]] = defaultdict(set)

    async def run(self) -> None:
        self._queue = WorkQueue("bindings")
        self._by_target.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._queue.run, self._reconcile)
            nursery.start_soon(reflect, self._parts.store, POD, self._pod_changed)
            await reflect(self._parts.store, BINDING, self._binding_changed)

    def _binding_changed(self, event: WatchEvent) -> None:
        key = namespace_of(event.object), name_of(event.object)
        target = key[0], event.object["spec"]["target"]
        if event.type is WatchType.DELETED:
            self._by_target[target].discard(key)
        else:
            self._by_target[target].add(key)
            self._queue.add(key)

    def _pod_changed(self, event: WatchEvent) -> None:
        target = namespace_of(event.object), labels_of(event.object).get(BUNDLE_LABEL, "")
        for key in self._by_target.get(target, ()):
            self._queue.add(key)

    async def _reconcile(self, key: _Key) -> None:
        binding = await self._parts.store.find(BINDING, *key)
        if binding is None or is_deleting(binding):
            return
        status = binding.get("status") or {}
        attempts = int(status.get("attempts", 0))
        phase = status.get("phase")
        if phase == BindingPhase.COMPLETED.value or (attempts >= MAX_ATTEMPTS and phase != BindingPhase.RUNNING.value):
            return
        delay = (parse_time(status.get("nextAttemptAt")) or 0.0) - self._parts.clock()
        if delay > 0:
            self._queue.add_after(key, delay)
            return
        spec = spec_of(binding)
        container = await self._ready_container(key[0], spec.target)
        if container is not None:
            # A run that was interrupted, by a crash of the server or by a stopped target, does not count.
            attempt = attempts if phase == BindingPhase.RUNNING.value else attempts + 1
            try:
                await self._run(binding, spec, container, attempt)
            except ObjectNotFoundError as exc:
                if exc.kind is not BINDING:
                    raise

    async def _ready_container(self, namespace: str, target: str) -> ContainerId | None:
        pod = await self._parts.store.find(POD, namespace, f"{target}-0")
        if pod is None or is_deleting(pod) or not condition_is_true(pod, "Ready"):
            return None  # its next change comes back here
        container: str = pod["status"]["containerStatuses"][0].get("containerID", "")
        return ContainerId(container.removeprefix(ID_SCHEME))

    async def _run(self, binding: Object, spec: BindingSpec, container: ContainerId, attempt: int) -> None:
        secrets = await self._secrets(namespace_of(binding), spec)
        started = timestamp(self._parts.clock())
        await self._write(binding, {"phase": BindingPhase.RUNNING.value, "attempts": attempt, "startedAt": started})
        await self._event(
            binding, spec, "BindingStarted", f"running {spec.command} in {spec.target}, attempt {attempt}"
        )
        call = BindingCall(
            id=f"{namespace_of(binding)}/{spec.bundle}/{spec.binding_id}",
            command=spec.command,
            arguments=tuple(_argument(argument, secrets) for argument in spec.arguments),
            container=container,
            runtime=self._parts.runtime,
            attempt=attempt,
        )
        outcome = await self._parts.binding.run(call)
        binding_runs.labels(outcome.result.value).inc()
        # The provider masks the arguments it was given; a command may also print a part of one.
        hidden = [value for entries in secrets.values() for value in entries.values()]
        await self._finish(binding, spec, attrs.evolve(outcome, output=mask(outcome.output, hidden)), attempt)

    async def _secrets(self, namespace: str, spec: BindingSpec) -> _Secrets:
        """The Secrets that the arguments refer to, in plaintext.

        Raises:
            NotFoundError: a Secret or a key is not there (yet): the queue comes back.
        """
        found: _Secrets = {}
        for reference in (a.secret_key_ref for a in spec.arguments if a.secret_key_ref is not None):
            if reference.name not in found:
                data = (await self._parts.store.get(SECRET, namespace, reference.name)).get("data") or {}
                found[reference.name] = {key: base64.b64decode(value).decode() for key, value in data.items()}
            if reference.key not in found[reference.name]:
                raise NotFoundError(f"Secret {reference.name!r} has no key {reference.key!r}")
        return found

    async def _finish(self, binding: Object, spec: BindingSpec, outcome: BindingOutcome, attempt: int) -> None:
        status: dict[str, Any] = {
            "phase": outcome.result.value,
            "attempts": attempt,
            "exitCode": outcome.exit_code,
            "startedAt": timestamp(outcome.started_at),
            "finishedAt": timestamp(outcome.finished_at),
            "output": outcome.output[-_OUTPUT_LIMIT:],
        }
        what = f"{spec.command} in {spec.target}"
        if outcome.result is BindingResult.COMPLETED:
            await self._write(binding, status)
            await self._event(binding, spec, "BindingCompleted", f"{what} succeeded")
            return
        last = (outcome.output.strip().splitlines() or [""])[-1][:300]
        why = "could not run" if outcome.exit_code is None else f"ended with {outcome.exit_code}"
        if outcome.result is BindingResult.TIMEOUT:
            why = "took too long and was killed"
        status["message"] = f"{what} {why}" + (f": {last}" if last else "")
        if attempt < MAX_ATTEMPTS:
            status["nextAttemptAt"] = timestamp(self._parts.clock() + 2.0**attempt)
        await self._write(binding, status)
        await self._event(binding, spec, _EVENTS[outcome.result], status["message"], warning=True)

    async def _write(self, binding: Object, status: dict[str, Any]) -> None:
        def put(found: Object) -> None:
            if uid_of(found) != uid_of(binding):
                # Made anew meanwhile, with other arguments: how the old one ended says nothing about it.
                raise ObjectNotFoundError(BINDING, name_of(binding))
            found["status"] = status

        await self._parts.store.modify(BINDING, namespace_of(binding), name_of(binding), put, subresource="status")

    async def _event(
        self, binding: Object, spec: BindingSpec, reason: str, message: str, *, warning: bool = False
    ) -> None:
        """Told of the bundle that asked: that is where people look."""
        about = await self._parts.store.find(BUNDLE, namespace_of(binding), spec.bundle) or binding
        kind: Literal["Normal", "Warning"] = "Warning" if warning else "Normal"
        await self._parts.events.record(about, reason=reason, message=message, type=kind, component="kubelet")


def _argument(argument: BindingValue, secrets: _Secrets) -> BindingArgument:
    reference = argument.secret_key_ref
    if reference is None:
        return BindingArgument(value=argument.value or "")
    return BindingArgument(value=secrets[reference.name][reference.key], secret=True)
