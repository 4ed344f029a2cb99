"""The bundle controller: brings each Bundle to what it asks for, step by step, from whatever state it is in.

Each reconcile starts from the stored objects: plan, write the profile, write the objects that the plan holds, look at
how far they came, write the status. What has to wait returns; the next change of any object concerned comes back.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import structlog
import trio

from nanocloud.controllers import children, revocations
from nanocloud.controllers.dependants import Dependants
from nanocloud.controllers.planner import (
    MissingServicesError,
    NameTakenError,
    RefusedServiceError,
    UnpreparedServiceError,
)
from nanocloud.controllers.progress import Obstacle, pod_obstacle, set_progress
from nanocloud.controllers.revocations import Made, ensure_revocation
from nanocloud.controllers.uninstall import INSTALLED_FOR
from nanocloud.errors import (
    ConflictError,
    ImageError,
    InvalidError,
    LabelError,
    NanocloudError,
    NotFoundError,
    ProviderError,
)
from nanocloud.kubelet.binding_order import MAX_ATTEMPTS
from nanocloud.models.binding import BINDING, BindingPhase
from nanocloud.models.binding import spec_of as binding_spec_of
from nanocloud.models.binding import status_of as binding_status_of
from nanocloud.models.bundle import BUNDLE, BUNDLE_LABEL, RESTARTED_AT, BundleCondition, BundlePhase, spec_of
from nanocloud.models.core import PERSISTENT_VOLUME_CLAIM
from nanocloud.models.meta import annotations_of, condition_is_true, is_deleting, labels_of, name_of, namespace_of
from nanocloud.models.pod import POD
from nanocloud.objects import ObjectExistsError, WatchType
from nanocloud.objects.reflector import reflect
from nanocloud.planning.profile import BindingRecord
from nanocloud.providers.binding import BindingResult
from nanocloud.workqueue import WorkQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from nanocloud.controllers.parts import ControllerParts
    from nanocloud.controllers.planner import PlannedBundle
    from nanocloud.models.binding import BindingSpec
    from nanocloud.models.bundle import BundleSpec
    from nanocloud.models.meta import Object
    from nanocloud.objects import WatchEvent
    from nanocloud.planning.profile import Profile
    from nanocloud.planning.workload import BindingStep, WorkloadPlan

log = structlog.get_logger("bundles")

_Key = tuple[str, str]
_PREPARED, _PROVISIONED, _BOUND, _READY = BundleCondition
_RETRY_SECONDS = 15.0


class BlockedError(NanocloudError):
    """Reconciling stops here for now."""

    def __init__(self, reached: list[BundleCondition], obstacle: Obstacle | None) -> None:
        super().__init__(obstacle.message if obstacle else "")
        self.reached, self.obstacle = reached, obstacle


class BundleController:
    """Reconciles bundles."""

    name = "bundles"

    def __init__(self, parts: ControllerParts) -> None:
        self._parts = parts
        self._queue: WorkQueue[_Key] = WorkQueue("bundles")
        self._dependants = Dependants()
        self._said: dict[_Key, dict[str, Any]] = {}
        """The status that was written last; reading it back is no reason to look again."""

    async def run(self) -> None:
        self._queue = WorkQueue("bundles")
        self._dependants.clear()
        self._said.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._queue.run, self._reconcile)
            for kind in (POD, BINDING, PERSISTENT_VOLUME_CLAIM):
                nursery.start_soon(reflect, self._parts.store, kind, self._child_changed)
            await reflect(self._parts.store, BUNDLE, self._bundle_changed)

    def _bundle_changed(self, event: WatchEvent) -> None:
        key = namespace_of(event.object), name_of(event.object)
        if event.object.get("status") != self._said.get(key) or not _only_status_changed(event):
            self._queue.add(key)
        for dependant in self._dependants.of(key):
            self._queue.add(dependant)

    def _child_changed(self, event: WatchEvent) -> None:
        if bundle := labels_of(event.object).get(BUNDLE_LABEL):
            self._queue.add((namespace_of(event.object), bundle))

    async def _reconcile(self, key: _Key) -> None:
        bundle = await self._parts.store.find(BUNDLE, *key)
        if bundle is None:
            self._dependants.forget(key)
            self._said.pop(key, None)
        elif is_deleting(bundle):
            for target in await self._parts.uninstaller.remove(bundle):
                self._dependants.add(key, target)
        else:
            await self._install(bundle, key)

    async def _install(self, bundle: Object, key: _Key) -> None:
        spec, planned = spec_of(bundle), None
        # First of all: what a user stops does not wait for what else is to be done, which may never come about.
        stopped = None if spec.start else await self._stop(bundle)
        try:
            planned = await self._prepare(bundle, key)
            await self._provision(bundle, planned.plan)
            await self._bind(bundle, planned)
            if stopped is not None:
                raise BlockedError([_PREPARED, _PROVISIONED, _BOUND], stopped)
            await self._start(bundle, planned.plan)
            await self._retire(bundle, planned)
            blocked = BlockedError(list(BundleCondition), None)
        except BlockedError as exc:
            blocked = exc
        await self._write_status(bundle, spec, planned, blocked)

    async def _prepare(self, bundle: Object, key: _Key) -> PlannedBundle:
        """Plan and keep the profile; installs missing services and waits for their profiles."""
        if (unfit := self._parts.unfit) is not None:
            message = f"{unfit} ({unfit.hint})"
            raise BlockedError([], Obstacle(reason="PluginMissing", message=message, failed=True))
        try:
            planned = await self._plan(bundle)
        except MissingServicesError as exc:
            for service in exc.services:
                self._dependants.add(key, service)
                await self._add_service(bundle, service)
            raise BlockedError([], Obstacle(reason="WaitingForServices", message=str(exc))) from exc
        except UnpreparedServiceError as exc:
            self._dependants.add(key, exc.service)
            raise BlockedError([], await self._waiting_for(bundle, exc)) from exc
        except (InvalidError, LabelError) as exc:
            if isinstance(exc, RefusedServiceError | NameTakenError):
                for other in exc.waits_for:
                    self._dependants.add(key, other)
            reason = "LabelInvalid" if isinstance(exc, LabelError) else "OptionsInvalid"
            raise BlockedError([], Obstacle(reason=reason, message=str(exc), failed=True)) from exc
        except (NotFoundError, ProviderError) as exc:
            # The image may be built or pushed later, the node connected to a network; nothing here would tell.
            self._queue.add_after(key, _RETRY_SECONDS)
            reason = "ImageInvalid" if isinstance(exc, ImageError) else "MacroFailed"
            if isinstance(exc, NotFoundError):
                reason = "ImageNotFound"
            message = f"{exc}" + (f" ({exc.hint})" if exc.hint else "")
            raise BlockedError([], Obstacle(reason=reason, message=message, failed=True)) from exc
        for target in planned.profile.services.values():
            self._dependants.add(key, target)
        await self._parts.profiles.put(*key, planned.profile)
        return planned

    async def _plan(self, bundle: Object) -> PlannedBundle:
        try:
            return await self._parts.planner.plan(bundle)
        except MissingServicesError:
            # Before anything is installed for it: can the whole be? Services that select each other cannot.
            await self._parts.planner.plan(bundle, imagine=True)
            raise

    async def _waiting_for(self, bundle: Object, error: UnpreparedServiceError) -> Obstacle:
        """A selected service is there but not prepared; its own failure is ours."""
        target = await self._parts.store.find(BUNDLE, namespace_of(bundle), error.service)
        status = (target or {}).get("status") or {}
        if status.get("phase") == BundlePhase.FAILED.value:
            message = f"service {error.service} failed: {status.get('message', '')}"
            return Obstacle(reason="ServiceFailed", message=message, failed=True)
        try:
            await self._parts.planner.plan(bundle, imagine=True)
        except InvalidError as exc:  # two that wait for each other would do so for ever
            return Obstacle(reason="OptionsInvalid", message=str(exc), failed=True)
        except NanocloudError:
            pass  # the selected service itself will say so
        return Obstacle(reason="WaitingForServices", message=str(error))

    async def _add_service(self, bundle: Object, service: str) -> None:
        made = {
            "metadata": {
                "name": service,
                "namespace": namespace_of(bundle),
                "annotations": {INSTALLED_FOR: name_of(bundle)},
            },
            "spec": {"service": service},
        }
        try:
            await self._parts.store.create(BUNDLE, made)
        except ObjectExistsError:
            return
        await self._parts.events.record(bundle, reason="ServiceAdded", message=f"installing {service} first")

    async def _provision(self, bundle: Object, plan: WorkloadPlan) -> None:
        """Secrets and claims."""
        store = self._parts.store
        await children.ensure_options_secrets(store, bundle, plan)
        await children.ensure_tls_secret(store, bundle, plan, self._parts.authority)
        await children.ensure_claims(store, bundle, plan)

    async def _bind(self, bundle: Object, planned: PlannedBundle) -> None:
        """Have the pending binding steps run, one after the other within a target; record what succeeded."""
        reached = [_PREPARED, _PROVISIONED]
        for selected in planned.plan.services:
            await self._require_ready(bundle, selected.bundle, reached)
        await self._clear_bindings(bundle, planned)
        waiting: list[Obstacle] = []
        blocked_targets: set[str] = set()
        force = spec_of(bundle).force_bindings or ""
        for step in planned.plan.pending_bindings:
            if step.target in blocked_targets:
                continue
            await self._replace(bundle, step)
            context = f"{planned.plan.namespace}/{planned.plan.bundle}/{step.id}"
            run = self._parts.envelope.digest(f"{step.fingerprint}|{force}".encode(), context)
            binding = await children.ensure_binding(
                self._parts.store, bundle, planned.plan, step, provider=self._parts.binding_provider, run=run
            )
            obstacle = await self._look_at(bundle, step, binding)
            if obstacle is not None:
                waiting.append(obstacle)
                blocked_targets.add(step.target)
        if waiting:
            raise BlockedError(reached, next((o for o in waiting if o.failed), waiting[0]))

    async def _clear_bindings(self, bundle: Object, planned: PlannedBundle) -> None:
        """Remove Bindings of steps that are neither asked for nor recorded.

        What one has begun is taken back: its bundle changed its mind before that was recorded.
        """
        steps = planned.plan.bindings
        known = {step.id for step in steps} | planned.profile.bindings.keys()
        for binding in await children.children(self._parts.store, BINDING, bundle):
            spec = binding_spec_of(binding)
            if spec.binding_id in known or spec.bundle != name_of(bundle):
                continue
            if _may_serve(spec, steps):
                await revocations.remove(self._parts.store, binding)
            else:
                await revocations.withdraw(self._parts.store, bundle, binding, self._parts.binding_provider)

    async def _replace(self, bundle: Object, step: BindingStep) -> None:
        """Where a step ran under other names in the same target, those are taken back before it runs again."""

        def renamed(before: BindingRecord | BindingSpec) -> bool:
            same_target = before.target_uid == step.target_uid and before.revocable
            return same_target and before.owned != step.owned and bool(before.owned and step.owned)

        record = (await self._profile(bundle)).bindings.get(step.id)
        if record is not None and renamed(record):
            await self._take_back(bundle, step.id, record)
        binding = await children.binding_of(self._parts.store, bundle, step.id)
        if binding is not None and renamed(binding_spec_of(binding)):
            await revocations.withdraw(self._parts.store, bundle, binding, self._parts.binding_provider)

    async def _retire(self, bundle: Object, planned: PlannedBundle) -> None:
        """Take back what the bundle no longer asks for, once it runs without it."""
        current = {step.id: step for step in planned.plan.bindings}
        for step, record in planned.profile.bindings.items():
            if step in current:
                continue
            if record.revocable and not _may_serve(record, current.values()):
                await self._take_back(bundle, step, record)
            else:
                await self._forget(bundle, step)

    async def _take_back(self, bundle: Object, step: str, record: BindingRecord) -> None:
        store, provider = self._parts.store, self._parts.binding_provider
        if (binding := await children.binding_of(store, bundle, step)) is not None:
            spec = binding_spec_of(binding)
            if (spec.target_uid, spec.owned) == (record.target_uid, record.owned):
                await revocations.remove(store, binding)  # the record still tells of it
            else:
                await revocations.withdraw(store, bundle, binding, provider)
        made, forgotten = Made.of_record(step, record), (await self._profile(bundle)).forget(step)
        # As one write: a record of what is revoked would say that the bundle is still bound.
        entry = self._parts.profiles.entry(namespace_of(bundle), name_of(bundle), forgotten)
        if not await ensure_revocation(store, bundle, made, provider, also=(entry,)):
            await self._forget(bundle, step)

    async def _forget(self, bundle: Object, step: str) -> None:
        forgotten = (await self._profile(bundle)).forget(step)
        await self._parts.profiles.put(namespace_of(bundle), name_of(bundle), forgotten)

    async def _profile(self, bundle: Object) -> Profile:
        found = await self._parts.profiles.get(namespace_of(bundle), name_of(bundle))
        assert found is not None, "the profile is stored before bindings run"
        return found

    async def _require_ready(self, bundle: Object, service: str, reached: list[BundleCondition]) -> None:
        """Before this bundle's pod first starts, what it selected is ready; later it may come and go."""
        if await self._parts.store.find(POD, namespace_of(bundle), f"{name_of(bundle)}-0") is not None:
            return
        target = await self._parts.store.find(BUNDLE, namespace_of(bundle), service)
        if target is not None and condition_is_true(target, _READY.value):
            return
        status = (target or {}).get("status") or {}
        if status.get("phase") == BundlePhase.FAILED.value:
            message = f"service {service} failed: {status.get('message', '')}"
            raise BlockedError(reached, Obstacle(reason="ServiceFailed", message=message, failed=True))
        raise BlockedError(reached, Obstacle(reason="WaitingForServices", message=f"waiting until {service} is ready"))

    async def _look_at(self, bundle: Object, step: BindingStep, binding: Object) -> Obstacle | None:
        """None once the step is recorded as done."""
        status = binding_status_of(binding)
        if status.get("phase") == BindingPhase.COMPLETED.value:
            await self._record(bundle, step, status)
            return None
        if status.get("phase") in (BindingPhase.FAILED.value, BindingPhase.TIMEOUT.value):
            hopeless = int(status.get("attempts", 0)) >= MAX_ATTEMPTS
            return Obstacle(reason="BindingFailed", message=status.get("message", ""), failed=hopeless)
        return Obstacle(reason="Binding", message=f"running {step.command} in {step.target}")

    async def _record(self, bundle: Object, step: BindingStep, status: dict[str, Any]) -> None:
        record = BindingRecord(
            command=step.command,
            target=step.target,
            attempts=int(status.get("attempts", 1)),
            result=BindingResult.COMPLETED,
            exit_code=status.get("exitCode"),
            started_at=status.get("startedAt") or "",
            finished_at=status.get("finishedAt") or "",
            fingerprint=step.fingerprint,
            target_uid=step.target_uid,
            arguments=step.shown_arguments,
            owned=step.owned,
            revocable=step.revocable,
        )
        recorded = (await self._profile(bundle)).record(step.id, record)
        await self._parts.profiles.put(namespace_of(bundle), name_of(bundle), recorded)

    async def _stop(self, bundle: Object) -> Obstacle:
        if await children.remove_pod(self._parts.store, bundle):
            return Obstacle(reason="Stopped", message="the service is stopped")
        return Obstacle(reason="Stopping", message="the service is being stopped")

    async def _start(self, bundle: Object, plan: WorkloadPlan) -> None:
        secrets = "".join(f"{name}={o.value}\0" for name, o in plan.options.items() if o.secret)
        digest = self._parts.envelope.digest(secrets.encode(), f"{plan.namespace}/{plan.bundle}/secrets")
        pod = await children.ensure_pod(self._parts.store, bundle, plan, secrets=digest)
        if obstacle := pod_obstacle(pod):
            raise BlockedError([_PREPARED, _PROVISIONED, _BOUND], obstacle)

    async def _write_status(
        self, bundle: Object, spec: BundleSpec, planned: PlannedBundle | None, blocked: BlockedError
    ) -> None:
        bindings = await self._binding_summaries(bundle)

        def put(found: Object) -> None:
            status = found.setdefault("status", {})
            if planned is not None:
                plan = planned.plan
                status["image"] = plan.image
                status["options"] = {name: option.shown for name, option in plan.options.items()}
                status["optionSources"] = {name: option.source for name, option in plan.options.items()}
                status["services"] = dict(planned.profile.services)
                status["pod"] = f"{plan.bundle}-0"
            status["bindings"] = bindings
            if restarted := annotations_of(bundle).get(RESTARTED_AT):
                status["restartedAt"] = restarted
            if spec.force_bindings and _BOUND in blocked.reached:
                status["forcedBindings"] = spec.force_bindings
            # The spec may have changed meanwhile: this is the answer to the one that was read.
            seen = bundle["metadata"].get("generation", 1)
            set_progress(found, blocked.reached, blocked.obstacle, stopped=not spec.start, generation=seen)
            self._said[namespace_of(bundle), name_of(bundle)] = status

        # Told first: a crash in between tells twice, which is counted; the other way round it would never be told.
        await self._tell(bundle, put, blocked.obstacle)
        try:
            await self._parts.store.modify(BUNDLE, namespace_of(bundle), name_of(bundle), put, subresource="status")
        except (NotFoundError, ConflictError):
            return  # it went, or changed: its watch event comes back here

    async def _binding_summaries(self, bundle: Object) -> list[dict[str, Any]]:
        """Of the Binding objects; what only the profile records, as after an import, stands beside them."""
        found = await revocations.of_bundle(self._parts.store, bundle)
        known = {binding["spec"]["bindingId"] for binding in found}
        profile = await self._parts.profiles.get(namespace_of(bundle), name_of(bundle))
        records = profile.bindings if profile is not None else {}
        recorded = [_recorded(step, record) for step, record in records.items() if step not in known]
        return [*(_summary(binding) for binding in found), *recorded]

    async def _tell(self, bundle: Object, put: Callable[[Object], None], why: Obstacle | None) -> None:
        """Events for what changes: conditions that come true, and a failure when it begins."""
        after = copy.deepcopy(bundle)
        put(after)
        for kind in BundleCondition:
            if condition_is_true(after, kind.value) and not condition_is_true(bundle, kind.value):
                await self._parts.events.record(bundle, reason=kind.value, message=_SENTENCES[kind])
        failed_before = (bundle.get("status") or {}).get("phase") == BundlePhase.FAILED.value
        if why is not None and why.failed and not failed_before:
            await self._parts.events.record(bundle, reason=why.reason, message=why.message, type="Warning")


def _may_serve(made: BindingRecord | BindingSpec, steps: Iterable[BindingStep]) -> bool:
    """Whether taking it back could take away what a step that is asked for makes; unknown counts as yes."""
    same = [step for step in steps if (step.target, step.target_uid) == (made.target, made.target_uid)]
    return any(not made.owned or not step.owned or made.owned.items() & step.owned.items() for step in same)


def _only_status_changed(event: WatchEvent) -> bool:
    return event.type is WatchType.MODIFIED and _asked(event.object) == _asked(event.previous or {})


def _asked(bundle: Object) -> Object:
    """Everything but the status, and the revision that goes with it."""
    meta = {field: value for field, value in bundle.get("metadata", {}).items() if field != "resourceVersion"}
    return {field: value for field, value in bundle.items() if field != "status"} | {"metadata": meta}


_SENTENCES = {
    _PREPARED: "the profile is decided and stored",
    _PROVISIONED: "secrets, certificates and claims exist",
    _BOUND: "every binding has completed",
    _READY: "the service is ready",
}


def _summary(binding: Object) -> dict[str, Any]:
    spec, status = binding["spec"], binding_status_of(binding)
    summary = {
        "name": name_of(binding),
        "target": spec["target"],
        "command": binding_spec_of(binding).executable,
        "phase": status.get("phase", BindingPhase.PENDING.value),
        "attempts": status.get("attempts", 0),
        "exitCode": status.get("exitCode"),
        "message": status.get("message"),
        "startedAt": status.get("startedAt"),
        "finishedAt": status.get("finishedAt"),
    }
    return {key: value for key, value in summary.items() if value is not None}


def _recorded(step: str, record: BindingRecord) -> dict[str, Any]:
    summary = {
        "name": step,
        "target": record.target,
        "command": record.command,
        "phase": record.result.value,
        "attempts": record.attempts,
        "exitCode": record.exit_code,
        "startedAt": record.started_at or None,
        "finishedAt": record.finished_at or None,
    }
    return {key: value for key, value in summary.items() if value is not None}
