"""Runs Binding objects: each once it can, until it succeeded, a few times if it fails.

A Binding is run when its target's pod is ready and nothing stands in its way (``binding_order``). A run that a crash
interrupted is run again, so commands are idempotent. It counts as done once the companion ``verify_<thing>`` agrees,
where there is one. After the last attempt a Binding stays ``Failed`` until its controller makes it anew. A revocation
is tried again and again, for an account must not be forgotten, and deleted once it is done.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Literal

import attrs
import orjson
import trio

from nanocloud.bindings import mask
from nanocloud.errors import NanocloudError, NotFoundError
from nanocloud.kubelet.binding_order import BY_MARK, MAX_ATTEMPTS, is_revocation, marks_of, way_of
from nanocloud.kubelet.status import ID_SCHEME
from nanocloud.models.binding import BINDING, VERIFY, BindingPhase, companion, spec_of, status_of
from nanocloud.models.bundle import BUNDLE, BUNDLE_LABEL
from nanocloud.models.core import SECRET
from nanocloud.models.meta import (
    condition_is_true,
    is_deleting,
    labels_of,
    name_of,
    namespace_of,
    owner_uids,
    parse_time,
    timestamp,
    uid_of,
)
from nanocloud.models.pod import POD
from nanocloud.objects import ObjectNotFoundError, WatchType
from nanocloud.objects.reflector import reflect
from nanocloud.observability.metrics import binding_runs
from nanocloud.providers.binding import BindingArgument, BindingCall, BindingOutcome, BindingResult
from nanocloud.providers.runtime import ContainerId
from nanocloud.workqueue import WorkQueue

if TYPE_CHECKING:
    from nanocloud.kubelet.parts import KubeletParts
    from nanocloud.models.binding import BindingSpec, BindingValue
    from nanocloud.models.meta import Object
    from nanocloud.objects import WatchEvent

_LAST_BACKOFF_SECONDS = 300.0
_OUTPUT_LIMIT_BYTES = 1024 * 1024  # as JSON, below what one value of the keyspace may hold
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
        self._waiting: defaultdict[_Key, set[_Key]] = defaultdict(set)
        """By target: the bindings that are not done."""
        self._held: defaultdict[_Key, set[_Key]] = defaultdict(set)
        """By target: those of them that found another in their way."""
        self._running: dict[_Key, BindingSpec] = {}
        self._claiming = trio.Lock()
        """Held between looking at what is in the way and saying that a command runs."""

    async def run(self) -> None:
        self._queue = WorkQueue("bindings")
        self._waiting.clear()
        self._held.clear()
        self._running.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._queue.run, self._reconcile)
            nursery.start_soon(reflect, self._parts.store, POD, self._pod_changed)
            await reflect(self._parts.store, BINDING, self._binding_changed)

    def _binding_changed(self, event: WatchEvent) -> None:
        key = namespace_of(event.object), name_of(event.object)
        target = key[0], event.object["spec"]["target"]
        if event.type is WatchType.DELETED or _is_done(event.object):
            _discard(self._waiting, target, key)
        else:
            self._waiting[target].add(key)
            self._queue.add(key)
        if event.type is WatchType.DELETED:
            _discard(self._held, target, key)
            self._let_go(target)

    def _pod_changed(self, event: WatchEvent) -> None:
        target = namespace_of(event.object), labels_of(event.object).get(BUNDLE_LABEL, "")
        for key in sorted(self._waiting.get(target, ())):  # one order, whatever strings hash to
            self._queue.add(key)

    def _let_go(self, target: _Key) -> None:
        """Have those look again that something was in the way of."""
        for key in sorted(self._held.pop(target, ())):
            self._queue.add(key)

    async def _reconcile(self, key: _Key) -> None:
        binding = await self._parts.store.find(BINDING, *key)
        if binding is None or is_deleting(binding):
            return
        status = status_of(binding)
        attempts = int(status.get("attempts", 0))
        phase, spec = status.get("phase"), spec_of(binding)
        if not spec.run and not is_revocation(spec):
            return  # its bundle takes back what it has begun
        if phase == BindingPhase.COMPLETED.value:
            if is_revocation(spec):
                await self._delete(binding)
            return
        if attempts >= MAX_ATTEMPTS and phase != BindingPhase.RUNNING.value and not is_revocation(spec):
            return
        delay = (parse_time(status.get("nextAttemptAt")) or 0.0) - self._parts.clock()
        # What is farther off is due: the clock was set back meanwhile. A second more is rounding, or a clock's slewing.
        if 0 < delay <= _pause_seconds(attempts) + 1:
            self._queue.add_after(key, delay)
            return
        container = await self._ready_container(key[0], spec)
        if container is not None:
            # A run that was interrupted, by a crash of the server or by a stopped target, does not count.
            attempt = attempts if phase == BindingPhase.RUNNING.value else attempts + 1
            try:
                await self._run(binding, spec, container, attempt)
            except ObjectNotFoundError as exc:
                if exc.kind is not BINDING:
                    raise
            finally:
                if self._running.pop(key, None) is not None:
                    self._let_go((key[0], spec.target))

    async def _ready_container(self, namespace: str, spec: BindingSpec) -> ContainerId | None:
        pod = await self._parts.store.find(POD, namespace, f"{spec.target}-0")
        if pod is None or is_deleting(pod) or not condition_is_true(pod, "Ready"):
            return None  # its next change comes back here
        if spec.target_uid and spec.target_uid not in owner_uids(pod):
            return None  # of a target that was installed anew meanwhile: whoever asks asks anew
        container: str = pod["status"]["containerStatuses"][0].get("containerID", "")
        return ContainerId(container.removeprefix(ID_SCHEME))

    async def _run(self, binding: Object, spec: BindingSpec, container: ContainerId, attempt: int) -> None:
        secrets = await self._secrets(namespace_of(binding), spec)
        if not await self._claim(binding, spec, attempt):
            return
        await self._event(
            binding, spec, "BindingStarted", f"running {spec.executable} in {spec.target}, attempt {attempt}"
        )
        call = BindingCall(
            id=f"{namespace_of(binding)}/{spec.bundle}/{spec.binding_id}",
            command=spec.executable,
            arguments=tuple(_argument(argument, secrets) for argument in spec.arguments),
            container=container,
            runtime=self._parts.runtime,
            attempt=attempt,
        )
        command, outcome = await self._carry_out(spec, call)
        # The provider masks the arguments it was given; a command may also print a part of one.
        hidden = [value for entries in secrets.values() for value in entries.values()]
        outcome = attrs.evolve(outcome, output=mask(outcome.output, hidden))
        await self._finish(binding, spec, command, outcome, attempt)

    async def _claim(self, binding: Object, spec: BindingSpec, attempt: int) -> bool:
        """Say that the command runs, if nothing is in its way; what waits comes back when another has ended."""
        key, target = (namespace_of(binding), name_of(binding)), (namespace_of(binding), spec.target)

        async with self._claiming:
            self._held[target].add(key)  # before looking: what goes out of the way meanwhile has us look again
            others = await self._others(binding)
            running = {name: s for (ns, name), s in self._running.items() if (ns, s.target) == target}
            way = way_of(binding, spec, others, running)
            if way.conflict:
                status = {"phase": BindingPhase.FAILED.value, "attempts": attempt, "message": way.conflict}
                await self._fail(binding, spec, status, "BindingFailed")
                return False
            if not way.is_free:
                return False
            _discard(self._held, target, key)
            started = timestamp(self._parts.clock())
            await self._write(binding, {"phase": BindingPhase.RUNNING.value, "attempts": attempt, "startedAt": started})
            for other in way.superseded:  # only now: what they were to revoke is known as begun here
                await self._delete(other)
            self._running[key] = spec
        return True

    async def _others(self, binding: Object) -> list[Object]:
        """The bindings that can be in its way, by name."""
        namespace = namespace_of(binding)
        members = [await self._parts.store.members(BY_MARK, namespace, mark) for mark in marks_of(binding)]
        found = {name_of(other): other for group in members for other in group}
        return [found[name] for name in sorted(found)]

    async def _carry_out(self, spec: BindingSpec, call: BindingCall) -> tuple[str, BindingOutcome]:
        """Run the command, and the one that verifies it; returns the last that ran, and how both went."""
        outcome = await self._outcome(call)
        verify = companion(spec.command, VERIFY)
        if outcome.result is not BindingResult.COMPLETED or not spec.verify or is_revocation(spec) or verify is None:
            return call.command, outcome
        verified = await self._outcome(attrs.evolve(call, command=verify))
        whole = attrs.evolve(verified, started_at=outcome.started_at, output=outcome.output + verified.output)
        return verify, whole

    async def _outcome(self, call: BindingCall) -> BindingOutcome:
        """A provider that cannot run the command is one more way for it to fail: counted, told, tried again later."""
        started_at = self._parts.clock()
        try:
            outcome = await self._parts.binding.run(call)
        except NanocloudError as exc:
            outcome = BindingOutcome(
                result=BindingResult.FAILED,
                exit_code=None,
                output=str(exc),
                started_at=started_at,
                finished_at=self._parts.clock(),
            )
        binding_runs.labels(outcome.result.value).inc()
        return outcome

    async def _delete(self, binding: Object) -> None:
        try:
            await self._parts.store.delete(BINDING, namespace_of(binding), name_of(binding), uid=uid_of(binding))
        except ObjectNotFoundError:
            return  # with its target

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

    async def _finish(
        self, binding: Object, spec: BindingSpec, command: str, outcome: BindingOutcome, attempt: int
    ) -> None:
        status: dict[str, Any] = {
            "phase": outcome.result.value,
            "attempts": attempt,
            "exitCode": outcome.exit_code,
            "startedAt": timestamp(outcome.started_at),
            "finishedAt": timestamp(outcome.finished_at),
            "output": _clipped(outcome.output),
        }
        what = f"{command} in {spec.target}"
        if outcome.result is BindingResult.COMPLETED:
            await self._write(binding, status)
            await self._event(binding, spec, "BindingCompleted", f"{spec.executable} in {spec.target} succeeded")
            if is_revocation(spec):
                await self._delete(binding)
            return
        last = (outcome.output.strip().splitlines() or [""])[-1][:300]
        why = "could not run" if outcome.exit_code is None else f"ended with {outcome.exit_code}"
        if outcome.result is BindingResult.TIMEOUT:
            why = "took too long and was killed"
        status["message"] = f"{what} {why}" + (f": {last}" if last else "")
        await self._fail(binding, spec, status, _EVENTS[outcome.result])

    async def _fail(self, binding: Object, spec: BindingSpec, status: dict[str, Any], reason: str) -> None:
        attempt: int = status["attempts"]
        if attempt < MAX_ATTEMPTS or is_revocation(spec):
            status["nextAttemptAt"] = timestamp(self._parts.clock() + _pause_seconds(attempt))
        await self._write(binding, status)
        await self._event(binding, spec, reason, status["message"], warning=True)

    async def _write(self, binding: Object, status: dict[str, Any]) -> None:
        def put(found: Object) -> None:
            generation = binding["metadata"]["generation"]
            if (uid_of(found), found["metadata"]["generation"]) != (uid_of(binding), generation):
                # Another run is asked for meanwhile: how the old one ended says nothing about it.
                raise ObjectNotFoundError(BINDING, name_of(binding))
            begun = {field: value for field, value in (found.get("status") or {}).items() if field == "startedAt"}
            found["status"] = begun | status | {"observedGeneration": generation}

        await self._parts.store.modify(BINDING, namespace_of(binding), name_of(binding), put, subresource="status")

    async def _event(
        self, binding: Object, spec: BindingSpec, reason: str, message: str, *, warning: bool = False
    ) -> None:
        """Told of the bundle that asked: that is where people look."""
        about = await self._parts.store.find(BUNDLE, namespace_of(binding), spec.bundle) or binding
        kind: Literal["Normal", "Warning"] = "Warning" if warning else "Normal"
        await self._parts.events.record(about, reason=reason, message=message, type=kind, component="kubelet")


def _pause_seconds(attempts: int) -> float:
    """How long to wait after so many failures."""
    return min(2.0 ** min(attempts, 16), _LAST_BACKOFF_SECONDS)


def _is_done(binding: Object) -> bool:
    """Whether nothing is left to be done; a revocation is deleted when it is done."""
    is_completed = status_of(binding).get("phase") == BindingPhase.COMPLETED.value
    return is_completed and not is_revocation(spec_of(binding))


def _discard(table: defaultdict[_Key, set[_Key]], target: _Key, key: _Key) -> None:
    if (keys := table.get(target)) is not None:
        keys.discard(key)
        if not keys:
            del table[target]


def _clipped(output: str) -> str:
    """The end of the output that fits."""
    while (size := len(orjson.dumps(output))) > _OUTPUT_LIMIT_BYTES:
        output = output[-max(1, len(output) * _OUTPUT_LIMIT_BYTES // size - 1) :]
    return output


def _argument(argument: BindingValue, secrets: _Secrets) -> BindingArgument:
    reference = argument.secret_key_ref
    if reference is None:
        return BindingArgument(value=argument.value or "")
    return BindingArgument(value=secrets[reference.name][reference.key], secret=True)
