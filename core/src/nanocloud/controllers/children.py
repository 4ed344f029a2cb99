"""The objects that a bundle is made of, written from its plan: Secrets, claims, Bindings, the Pod.

Every function brings one of them to what the plan says and is safe to repeat. All carry the bundle's label and an
owner reference, which is how uninstalling finds them.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

import orjson

from nanocloud.kubelet.claims import FINALIZER as VOLUME_FINALIZER
from nanocloud.kubelet.translate import SERVICES
from nanocloud.models.binding import BINDING
from nanocloud.models.bundle import BUNDLE_LABEL, RESTARTED_AT
from nanocloud.models.core import PERSISTENT_VOLUME_CLAIM, SECRET
from nanocloud.models.meta import (
    annotations_of,
    is_deleting,
    name_of,
    namespace_of,
    owner_reference,
    revision_of,
    uid_of,
)
from nanocloud.models.pod import POD
from nanocloud.objects import by_owner

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nanocloud.identity.authority import CertificateAuthority
    from nanocloud.models.kinds import ResourceKind
    from nanocloud.models.meta import Object
    from nanocloud.objects import ObjectStore
    from nanocloud.planning.workload import BindingStep, WorkloadPlan

SPEC_HASH = "nanocloud.io/spec-hash"
"""Annotation of a pod: what it was made from; another plan gives another hash, and another pod."""


_OWNED = {kind: by_owner(kind) for kind in (BINDING, PERSISTENT_VOLUME_CLAIM, POD, SECRET)}


def _adopt(obj: Object, bundle: Object) -> Object:
    meta = obj.setdefault("metadata", {})
    meta["namespace"] = namespace_of(bundle)
    meta.setdefault("labels", {})[BUNDLE_LABEL] = name_of(bundle)
    meta["ownerReferences"] = [owner_reference(bundle)]
    return obj


async def ensure_secret(
    store: ObjectStore, bundle: Object, name: str, data: Mapping[str, bytes], *, kind: str = "Opaque"
) -> None:
    """Make the Secret hold exactly ``data``."""
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    found = await store.find(SECRET, namespace_of(bundle), name)
    if found is None:
        await store.create(SECRET, _adopt({"metadata": {"name": name}, "type": kind, "data": encoded}, bundle))
    elif found.get("data") != encoded:
        await store.update(SECRET, {**found, "data": encoded})


async def ensure_options_secrets(store: ObjectStore, bundle: Object, plan: WorkloadPlan) -> None:
    for secret in plan.secrets:
        data = {key: value.encode() for key, value in secret.values.items()}
        await ensure_secret(store, bundle, secret.name, data)


async def ensure_tls_secret(
    store: ObjectStore, bundle: Object, plan: WorkloadPlan, authority: CertificateAuthority
) -> None:
    """A certificate of the node's CA for the service's names, made once."""
    if plan.tls_secret is None or await store.find(SECRET, plan.namespace, plan.tls_secret) is not None:
        return
    pair = authority.issue_service(plan.bundle, service_names(plan.namespace, plan.bundle))
    data = {"tls.key": pair.key, "tls.crt": pair.certificate, "ca.crt": authority.certificate}
    await ensure_secret(store, bundle, plan.tls_secret, data, kind="kubernetes.io/tls")


def service_names(namespace: str, bundle: str) -> list[str]:
    """Everything a service is called by."""
    local = [f"{bundle}.nanocloud.local", "localhost", "127.0.0.1"]
    return [bundle, f"{bundle}.{namespace}", f"{bundle}.{namespace}.svc", *local]


async def ensure_claims(store: ObjectStore, bundle: Object, plan: WorkloadPlan) -> None:
    for claim in plan.claim_objects:
        if await store.find(PERSISTENT_VOLUME_CLAIM, plan.namespace, name_of(claim)) is None:
            made = _adopt(_copy(claim), bundle)
            made["metadata"]["finalizers"] = [VOLUME_FINALIZER]
            await store.create(PERSISTENT_VOLUME_CLAIM, made)


def binding_name(bundle: str, step: str) -> str:
    """Of the Binding that runs the step of that id."""
    return f"{bundle}-{hashlib.sha256(step.encode()).hexdigest()[:12]}"


async def binding_of(store: ObjectStore, bundle: Object, step: str) -> Object | None:
    """The Binding that runs the step, if there is one now."""
    return await store.find(BINDING, namespace_of(bundle), binding_name(name_of(bundle), step))


async def ensure_binding(
    store: ObjectStore, bundle: Object, plan: WorkloadPlan, step: BindingStep, *, provider: str, run: str
) -> Object:
    """The Binding of a step that has to run; ``run`` tells one run that is asked for from another."""
    name = binding_name(plan.bundle, step.id)
    found = await store.find(BINDING, plan.namespace, name)
    if found is not None and found["spec"].get("run", "") == run:
        return found
    arguments = [
        {"secretKeyRef": {"name": f"{plan.bundle}-options", "key": key}}
        if key is not None
        else {"value": argument.value}
        for argument, key in zip(step.arguments, step.secret_keys, strict=True)
    ]
    spec = {
        "bundle": plan.bundle,
        "target": step.target,
        "targetUid": step.target_uid,
        "bindingId": step.id,
        "provider": provider,
        "command": step.command,
        "action": step.action.value,
        "verify": step.verify,
        "revocable": step.revocable,
        "arguments": arguments,
        "owned": dict(step.owned),
        "run": run,
    }
    if found is not None:
        if _makes_the_same(found["spec"], spec):
            return await store.modify(BINDING, plan.namespace, name, lambda binding: binding | {"spec": spec})
        await store.delete(BINDING, plan.namespace, name, resource_version=revision_of(found))
    return await store.create(BINDING, _adopt({"metadata": {"name": name}, "spec": spec}, bundle))


def _makes_the_same(before: Object, spec: Object) -> bool:
    """Whether the one Binding may go on as the other: then what it has begun is not forgotten in between."""
    return all(before.get(field) == spec[field] for field in ("target", "targetUid", "command", "owned"))


async def ensure_pod(store: ObjectStore, bundle: Object, plan: WorkloadPlan, *, secrets: str) -> Object | None:
    """The pod as planned; one of another plan, or from before a restart request, is replaced.

    Args:
        secrets: changes when a secret value does, and tells nothing about it.

    Returns:
        The pod, or None while the one before it is still being taken down.
    """
    wanted = _adopt(_copy(plan.pod), bundle)
    notes = wanted["metadata"].setdefault("annotations", {})
    notes[SERVICES] = ",".join(sorted({service.bundle for service in plan.services}))
    notes[RESTARTED_AT] = annotations_of(bundle).get(RESTARTED_AT, "")
    notes[SPEC_HASH] = _hash({"spec": wanted["spec"], "restarted": notes[RESTARTED_AT], "secrets": secrets})
    found = await store.find(POD, plan.namespace, name_of(wanted))
    if found is None:
        return await store.create(POD, wanted)
    if is_deleting(found):
        return None
    if annotations_of(found).get(SPEC_HASH) != notes[SPEC_HASH]:
        await store.delete(POD, plan.namespace, name_of(wanted), uid=uid_of(found))
        return None
    return found


async def remove_pod(store: ObjectStore, bundle: Object) -> bool:
    """Ask the bundle's pod to go; True once it is gone."""
    found = await store.find(POD, namespace_of(bundle), f"{name_of(bundle)}-0")
    if found is None:
        return True
    if not is_deleting(found):
        await store.delete(POD, namespace_of(bundle), name_of(found), uid=uid_of(found))
    return False


async def children(store: ObjectStore, kind: ResourceKind, bundle: Object) -> list[Object]:
    """The objects of a kind that were made for the bundle."""
    return list(await store.members(_OWNED[kind], namespace_of(bundle), uid_of(bundle)))


def _hash(value: Any) -> str:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def _copy(obj: Object) -> Object:
    copied: Object = orjson.loads(orjson.dumps(obj))
    return copied
