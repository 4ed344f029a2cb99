"""What must be true once the faults have stopped and the node had time: each promise a function of its own.

A promise yields what breaks it, in words; nothing means that it is kept.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import attrs

from nanocloud.controllers.uninstall import INSTALLED_FOR
from nanocloud.kubelet.binding_order import MAX_ATTEMPTS, has_begun, is_revocation
from nanocloud.kubelet.prepare import volume_id
from nanocloud.kubelet.translate import POD_UID, owner_of, pods_folder, sandbox_id
from nanocloud.models.binding import BINDING, BindingPhase
from nanocloud.models.binding import spec_of as binding_spec_of
from nanocloud.models.binding import status_of as binding_status_of
from nanocloud.models.bundle import BUNDLE
from nanocloud.models.core import CONFIG_MAP, PERSISTENT_VOLUME_CLAIM, SECRET
from nanocloud.models.meta import annotations_of, condition_is_true, is_deleting, name_of, uid_of
from nanocloud.models.pod import POD
from nanocloud.providers.binding import BindingResult
from nanocloud.testkit.simulation.users import BundleState, BundleUser, Counter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from nanocloud.models.meta import Object
    from nanocloud.planning.profile import Profile
    from nanocloud.providers.network import SandboxNetwork
    from nanocloud.providers.volume import VolumeStatus
    from nanocloud.testkit.network import FakeNetwork
    from nanocloud.testkit.simulation.machine import Simulation
    from nanocloud.testkit.simulation.server import Server
    from nanocloud.testkit.simulation.services import Databases

_FAIR = frozenset({"PortInUse", "ServiceFailed", "BindingFailed", "OptionsInvalid"})
"""Reasons of a failure that may outlast all faults: two want one port or one account, or a command was given up."""


@attrs.frozen(kw_only=True)
class Scene:
    """Everything there is at the end, read once."""

    machine: Simulation
    databases: Databases
    users: Sequence[BundleUser]
    counters: Sequence[Counter]
    bundles: Mapping[str, Object]
    pods: Sequence[Object]
    claims: Sequence[Object]
    secrets: Sequence[Object]
    bindings: Sequence[Object]
    profiles: Mapping[str, Profile]
    counts: Mapping[str, str]
    """Of the ConfigMaps that count."""
    networks: Sequence[SandboxNetwork]
    volumes: Sequence[VolumeStatus]

    @classmethod
    async def look(
        cls,
        machine: Simulation,
        server: Server,
        databases: Databases,
        users: Sequence[BundleUser],
        counters: Sequence[Counter],
    ) -> Scene:
        store = server.store
        keys = [entry.key[2] for entry in (await store.keyspace.list(("profiles", "default"))).entries]
        profiles = {name: found for name in keys if (found := await server.profiles.get("default", name))}
        return cls(
            machine=machine,
            databases=databases,
            users=users,
            counters=counters,
            bundles={name_of(bundle): bundle for bundle in (await store.list(BUNDLE)).items},
            pods=(await store.list(POD)).items,
            claims=(await store.list(PERSISTENT_VOLUME_CLAIM)).items,
            secrets=(await store.list(SECRET)).items,
            bindings=(await store.list(BINDING)).items,
            profiles=profiles,
            counts={name_of(obj): obj["data"]["count"] for obj in (await store.list(CONFIG_MAP, "default")).items},
            networks=machine.network.attached,
            volumes=await machine.volume.list(),
        )


# ---- nothing acknowledged is lost ------------------------------------------------------------------------------------


def acknowledged_bundles_are_there(scene: Scene) -> Iterator[str]:
    for user in scene.users:
        bundle = scene.bundles.get(user.name)
        if bundle is not None and INSTALLED_FOR in annotations_of(bundle):
            continue  # not the user's
        state = None if bundle is None or is_deleting(bundle) else BundleState.of(bundle)
        if not user.ledger.allows(state):
            yield f"bundle {user.name} is {state}; acknowledged was {user.ledger}"


def acknowledged_counts_are_there(scene: Scene) -> Iterator[str]:
    for counter in scene.counters:
        if not counter.ledger.allows(value := scene.counts.get(counter.name)):
            yield f"{counter.name} is {value}; acknowledged was {counter.ledger}"


# ---- every bundle ends well, or says why not -------------------------------------------------------------------------


def every_bundle_has_come_to_an_end(scene: Scene) -> Iterator[str]:
    for name, bundle in scene.bundles.items():
        for problem in _unsettled(bundle, scene):
            yield f"bundle {name} {problem}"


def _unsettled(bundle: Object, scene: Scene) -> Iterator[str]:
    status: dict[str, Any] = bundle.get("status") or {}
    phase, reason, message = (status.get(field, "") for field in ("phase", "reason", "message"))
    if is_deleting(bundle):
        yield f"is still being uninstalled: {phase} {reason}"
    elif status.get("observedGeneration") != bundle["metadata"]["generation"]:
        seen, present = status.get("observedGeneration"), bundle["metadata"]["generation"]
        yield f"was last looked at in generation {seen}, not {present}"
    elif phase == "Running":
        if reason or not condition_is_true(bundle, "Ready"):
            yield f"is Running and not Ready: {reason}"
    elif phase == "Stopped":
        if bundle["spec"].get("start", True) or not reason:
            yield f"is Stopped without being asked to, or without a reason: {reason}"
    elif phase == "Failed":
        if reason not in _FAIR or not message:
            yield f"is Failed although nothing is wrong any more: {reason} {message}"
    elif not (
        phase == "Installing"
        and reason in ("WaitingForServices", "Binding")
        and _waits_for_a_stopped_one(bundle, scene)
    ):
        yield f"is {phase}: {reason} {message}"


def _waits_for_a_stopped_one(bundle: Object, scene: Scene) -> bool:
    profile = scene.profiles.get(name_of(bundle))
    selected = set(profile.services.values()) if profile else set((bundle["spec"].get("options") or {}).values())
    phases = {(scene.bundles[name].get("status") or {}).get("phase") for name in selected if name in scene.bundles}
    return bool(phases - {"Running"})


# ---- no orphan -------------------------------------------------------------------------------------------------------


def every_container_belongs_to_a_pod(scene: Scene) -> Iterator[str]:
    uids = {uid_of(pod) for pod in scene.pods}
    for container in scene.machine.runtime.containers.values():
        if container.spec.labels[POD_UID] not in uids:
            yield f"container {container.spec.id} has no pod"


def every_sandbox_belongs_to_a_pod(scene: Scene) -> Iterator[str]:
    sandboxes = {sandbox_id(uid_of(pod)) for pod in scene.pods}
    for network in scene.networks:
        if network.sandbox not in sandboxes:
            yield f"sandbox {network.sandbox} of {network.owner} has no pod"


def every_address_is_kept_for_a_bundle(scene: Scene) -> Iterator[str]:
    owners = {f"default/{name}-0" for name in scene.bundles} | {owner_of(pod) for pod in scene.pods}
    for owner in scene.machine.network.reserved:
        if owner not in owners:
            yield f"an address is kept for {owner}"


def every_volume_belongs_to_a_claim(scene: Scene) -> Iterator[str]:
    claims = {volume_id("default", name_of(claim)) for claim in scene.claims}
    for volume in scene.volumes:
        if volume.id not in claims:
            yield f"volume {volume.id} has no claim"
    for missing in sorted(claims - {volume.id for volume in scene.volumes}):
        yield f"claim of {missing} has no volume"


def every_use_of_a_volume_is_of_a_pod(scene: Scene) -> Iterator[str]:
    sandboxes = {sandbox_id(uid_of(pod)) for pod in scene.pods}
    for volume in scene.volumes:
        for consumer in sorted(set(volume.consumers) - sandboxes):
            yield f"volume {volume.id} is used by {consumer}, which is no pod"


def every_object_has_its_owner(scene: Scene) -> Iterator[str]:
    uids = {uid_of(bundle) for bundle in scene.bundles.values()}
    for obj in (*scene.pods, *scene.claims, *scene.secrets, *scene.bindings):
        for owner in obj["metadata"].get("ownerReferences") or []:
            if owner["uid"] not in uids:
                yield f"{obj['kind']} {name_of(obj)} outlived its owner {owner['name']}"


def every_profile_is_of_a_bundle(scene: Scene) -> Iterator[str]:
    for name in sorted(scene.profiles.keys() - scene.bundles.keys()):
        yield f"profile {name} has no bundle"


def every_log_is_of_a_pod(scene: Scene) -> Iterator[str]:
    uids = {uid_of(pod) for pod in scene.pods}
    folder = pods_folder(scene.machine.folder / "logs")
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.rpartition("_")[2] not in uids:
            yield f"logs {path.name} have no pod"


# ---- what runs is what was asked for ---------------------------------------------------------------------------------


def a_running_bundle_has_one_running_container(scene: Scene) -> Iterator[str]:
    running = scene.machine.runtime.running
    for name, bundle in scene.bundles.items():
        phase = (bundle.get("status") or {}).get("phase")
        mine = [c for c in scene.machine.runtime.containers.values() if c.spec.hostname == name]
        wanted = 1 if phase == "Running" else 0
        if phase in ("Running", "Stopped") and (len(mine), len([c for c in mine if c.spec.id in running])) != (
            wanted,
            wanted,
        ):
            yield f"bundle {name} is {phase} and has containers {[(str(c.spec.id), c.state.value) for c in mine]}"


def names_lead_to_the_pods(scene: Scene) -> Iterator[str]:
    attached = {network.sandbox: network.addresses for network in scene.networks}
    for pod in scene.pods:
        if condition_is_true(pod, "Ready"):
            name = f"{name_of(pod).removesuffix('-0')}.default.svc"
            published, addresses = scene.machine.network.names.get(name), attached.get(sandbox_id(uid_of(pod)))
            if published != addresses:
                yield f"{name} is {published}; the pod is at {addresses}"


def addresses_and_ports_are_given_once(network: FakeNetwork) -> Iterator[str]:
    """Holds at any time."""
    for one, other in combinations(network.attached, 2):
        if shared := set(one.addresses) & set(other.addresses):
            yield f"{one.sandbox} and {other.sandbox} both have {', '.join(map(str, sorted(shared, key=str)))}"
        ports = {(port.host_port, port.protocol) for port in one.ports}
        if doubled := ports & {(port.host_port, port.protocol) for port in other.ports}:
            yield f"{one.sandbox} and {other.sandbox} both have host port {sorted(doubled)}"


# ---- bindings --------------------------------------------------------------------------------------------------------


def every_binding_has_come_to_an_end(scene: Scene) -> Iterator[str]:
    """Done or given up, also where nobody waits for it; one has to wait where the target that it names does not run."""
    for binding in scene.bindings:
        spec, status = binding_spec_of(binding), binding_status_of(binding)
        target = scene.bundles.get(spec.target)
        if target is None or uid_of(target) != spec.target_uid or _phase(target) != "Running":
            continue
        phase, attempts = status.get("phase"), int(status.get("attempts", 0))
        is_given_up = attempts >= MAX_ATTEMPTS and phase != BindingPhase.RUNNING.value
        has_ended = not is_revocation(spec) and (is_given_up or phase == BindingPhase.COMPLETED.value)
        if not has_ended:
            yield f"{name_of(binding)} is {phase} after {attempts} attempts although {spec.target} runs"


def what_is_recorded_as_bound_is_bound(scene: Scene) -> Iterator[str]:
    for name, profile in scene.profiles.items():
        for step, record in profile.bindings.items():
            target = scene.bundles.get(record.target)
            if target is None or uid_of(target) != record.target_uid or record.result is not BindingResult.COMPLETED:
                continue
            database, user = str(record.arguments[0]), str(record.arguments[1])
            account = scene.databases.of(record.target).users.get(user)
            if account is None or database not in account.databases:
                yield f"{name} is bound by {step} to {record.target}, which does not know {user} in {database}"
            elif _runs(scene, name) and account.password != profile.options["database_password"].value:
                yield f"{name} has another password for {user} in {record.target}"


def _runs(scene: Scene, name: str) -> bool:
    return name in scene.bundles and _phase(scene.bundles[name]) == "Running"


def _phase(bundle: Object) -> object:
    return (bundle.get("status") or {}).get("phase")


def every_account_belongs_to_somebody(scene: Scene) -> Iterator[str]:
    """A revoked one is gone; what could not be revoked yet, or was begun and given up, is written down."""
    for name, bundle in scene.bundles.items():
        if bundle["spec"]["service"] not in ("mariadb", "postgres"):
            continue
        known = {user for _, user in _recorded(scene, bundle)} | set(_pending(scene, name))
        for user in sorted(scene.databases.of(name).users.keys() - known):
            yield f"nobody knows of account {user} in {name}"


def _recorded(scene: Scene, target: Object) -> Iterator[tuple[str, str]]:
    for name, profile in scene.profiles.items():
        for record in profile.bindings.values():
            if (record.target, record.target_uid) == (name_of(target), uid_of(target)):
                yield name, str(record.arguments[1])


def _pending(scene: Scene, target: str) -> Iterator[str]:
    for binding in scene.bindings:
        spec = binding_spec_of(binding)
        if spec.target == target and (is_revocation(spec) or has_begun(binding)):
            yield str(spec.arguments[1].value)


PROMISES = (
    acknowledged_bundles_are_there,
    acknowledged_counts_are_there,
    every_bundle_has_come_to_an_end,
    every_container_belongs_to_a_pod,
    every_sandbox_belongs_to_a_pod,
    every_address_is_kept_for_a_bundle,
    every_volume_belongs_to_a_claim,
    every_use_of_a_volume_is_of_a_pod,
    every_object_has_its_owner,
    every_profile_is_of_a_bundle,
    every_log_is_of_a_pod,
    a_running_bundle_has_one_running_container,
    names_lead_to_the_pods,
    every_binding_has_come_to_an_end,
    what_is_recorded_as_bound_is_bound,
    every_account_belongs_to_somebody,
)
