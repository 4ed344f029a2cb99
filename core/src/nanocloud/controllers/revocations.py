"""Taking back what bindings made: a Binding of the action Revoke, which belongs to the target.

The debt passes from the dependant to the target: the revocation is written before, or with the same write, as what
recorded the binding goes; and before it is written, no Binding is left that would pass for done if it were asked for
again. So nothing is forgotten by a crash in between, and a target that is stopped when its dependant goes revokes when
it runs again. A target that was removed, or installed anew, has nothing to revoke.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import attrs
import orjson

from nanocloud.kubelet.binding_order import MAX_ATTEMPTS, has_begun, is_revocation
from nanocloud.models.binding import BINDING, BindingAction, BindingPhase, spec_of
from nanocloud.models.bundle import BUNDLE, BUNDLE_LABEL
from nanocloud.models.meta import (
    condition_is_true,
    is_deleting,
    name_of,
    namespace_of,
    owner_reference,
    revision_of,
    uid_of,
)
from nanocloud.models.pod import POD
from nanocloud.objects import Grouping, ObjectExistsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nanocloud.keyspace import Put
    from nanocloud.models.binding import BindingSpec
    from nanocloud.models.meta import Object
    from nanocloud.objects import ObjectStore
    from nanocloud.planning.profile import BindingRecord

IN_PLACE_OF_SECRETS = "/dev/null"
"""Stands for a secret argument: taking access away needs no password."""
_BY_BUNDLE = Grouping(BINDING, lambda binding: [binding["spec"]["bundle"]])


@attrs.frozen(kw_only=True)
class Made:
    """What a binding made in a target, as far as undoing it needs to know."""

    binding_id: str
    target: str
    target_uid: str
    command: str
    arguments: tuple[str | None, ...]
    owned: Mapping[str, str]

    @classmethod
    def of_record(cls, binding_id: str, record: BindingRecord) -> Made:
        return cls(
            binding_id=binding_id,
            target=record.target,
            target_uid=record.target_uid,
            command=record.command,
            arguments=record.arguments,
            owned=record.owned,
        )

    @classmethod
    def of_binding(cls, spec: BindingSpec) -> Made:
        return cls(
            binding_id=spec.binding_id,
            target=spec.target,
            target_uid=spec.target_uid,
            command=spec.command,
            arguments=tuple(argument.value for argument in spec.arguments),
            owned=spec.owned,
        )

    def name(self, bundle: str) -> str:
        """Of the revocation; the same for the same thing, so writing it twice is writing it once."""
        what = orjson.dumps([self.target, self.target_uid, self.command, self.arguments])
        return f"{bundle}-revoke-{hashlib.sha256(what).hexdigest()[:12]}"


async def ensure_revocation(
    store: ObjectStore, bundle: Object, made: Made, provider: str, *, also: Sequence[Put] = ()
) -> bool:
    """Write the revocation, unless the target is gone, or another one by now.

    Returns:
        Whether it was written now, and ``also`` with it in the same transaction.
    """
    target = await store.find(BUNDLE, namespace_of(bundle), made.target)
    if target is None or is_deleting(target) or (made.target_uid and uid_of(target) != made.target_uid):
        return False
    spec: dict[str, Any] = {
        "bundle": name_of(bundle),
        "target": made.target,
        "targetUid": uid_of(target),
        "bindingId": made.binding_id,
        "provider": provider,
        "command": made.command,
        "action": BindingAction.REVOKE.value,
        "arguments": [{"value": IN_PLACE_OF_SECRETS if value is None else value} for value in made.arguments],
        "owned": dict(made.owned),
    }
    meta = {
        "name": made.name(name_of(bundle)),
        "namespace": namespace_of(bundle),
        "labels": {BUNDLE_LABEL: name_of(bundle)},
        "ownerReferences": [owner_reference(target)],
    }
    try:
        await store.create(BINDING, {"metadata": meta, "spec": spec}, also=also)
    except ObjectExistsError:
        return False
    return True


async def withdraw(store: ObjectStore, bundle: Object, binding: Object, provider: str) -> None:
    """Remove a Binding; what it has begun is taken back.

    Raises:
        StaleObjectError, PreconditionError: it changed after it was read, and may have begun.
    """
    spec = spec_of(binding)
    if has_begun(binding) and spec.revocable:
        # Asked for by nobody: what is left of it after a crash must not pass for done when it is asked for again.
        binding = await store.update(BINDING, binding | {"spec": binding["spec"] | {"run": ""}})
        await ensure_revocation(store, bundle, Made.of_binding(spec), provider)
    await remove(store, binding)


async def remove(store: ObjectStore, binding: Object) -> None:
    """Remove a Binding, and leave what it has made.

    Raises:
        PreconditionError: it changed after it was read.
    """
    await store.delete(BINDING, namespace_of(binding), name_of(binding), resource_version=revision_of(binding))


async def awaited(store: ObjectStore, bundle: Object) -> set[str]:
    """Targets that revoke something of the bundle now; for one that does not run nobody waits."""
    found = set()
    for binding in await of_bundle(store, bundle):
        spec, status = spec_of(binding), binding.get("status") or {}
        if not is_revocation(spec) or int(status.get("attempts", 0)) >= MAX_ATTEMPTS:
            continue
        pod = await store.find(POD, namespace_of(bundle), f"{spec.target}-0")
        if pod is not None and not is_deleting(pod) and condition_is_true(pod, "Ready"):
            found.add(spec.target)
    return found


async def outstanding(store: ObjectStore, bundle: Object) -> list[Object]:
    """Revocations of the bundle that are not done."""
    return [
        binding
        for binding in await of_bundle(store, bundle)
        if is_revocation(spec_of(binding))
        and (binding.get("status") or {}).get("phase") != BindingPhase.COMPLETED.value
    ]


async def of_bundle(store: ObjectStore, bundle: Object) -> Sequence[Object]:
    """All Bindings that the bundle asked for, whoever owns them now."""
    return await store.members(_BY_BUNDLE, namespace_of(bundle), name_of(bundle))
