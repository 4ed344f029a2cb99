"""What the server decides about an object's metadata on each write. Pure functions over plain objects.

Source: Kubernetes API conventions, "Metadata" and "Concurrency Control and Consistency".
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from nanocloud.ambient import surroundings, wall_clock
from nanocloud.errors import BadRequestError, FieldError
from nanocloud.models.meta import Object, generated_name, is_deleting, name_of, now, timestamp
from nanocloud.objects.codec import copy

if TYPE_CHECKING:
    from nanocloud.models.kinds import ResourceKind

_SERVER_OWNED = (
    "name",
    "namespace",
    "generateName",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "resourceVersion",
)


def new_object(kind: ResourceKind, obj: Object) -> Object:
    """A valid object that was never stored, from what a caller wants to create."""
    made = copy(obj)
    meta = made.setdefault("metadata", {})
    if not isinstance(meta, dict):
        raise BadRequestError("metadata must be an object")
    if meta.pop("resourceVersion", None):
        raise BadRequestError("resourceVersion should not be set on objects to be created")
    for field in ("selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
        meta.pop(field, None)
    if not kind.namespaced:
        meta.pop("namespace", None)
    if not meta.get("name") and isinstance(meta.get("generateName"), str) and meta["generateName"]:
        meta["name"] = generated_name(meta["generateName"])
    meta["uid"], meta["creationTimestamp"] = new_uid(), now()
    if counts_generations(kind):
        meta["generation"] = 1
    finalizers = meta.get("finalizers") or []
    if isinstance(finalizers, list) and (missing := [f for f in kind.initial_finalizers if f not in finalizers]):
        meta["finalizers"] = [*finalizers, *missing]
    return kind.validate(made)


def new_uid() -> str:
    return str(uuid.UUID(bytes=surroundings().rng.randbytes(16), version=4))


def counts_generations(kind: ResourceKind) -> bool:
    return kind.has_status and "spec" in kind.schema.get("properties", {})


def changed_object(kind: ResourceKind, current: Object, obj: Object, subresource: str | None) -> Object:
    """The valid next state when a caller writes ``obj`` over ``current``; equal to it where nothing changes."""
    if subresource == "status":
        made = copy(current)
        made["status"] = copy(obj).get("status") or {}
    else:
        made = copy(obj)
        _keep_server_owned(made, current)
        if kind.has_status:
            _keep(made, current, "status")
    kind.validate(made)
    kind.validate_change(current, made)
    _refuse_new_finalizers(kind, current, made)
    if counts_generations(kind) and _desired(made) != _desired(current):
        made["metadata"]["generation"] = int(current["metadata"].get("generation", 1)) + 1
    return made


def _keep_server_owned(made: Object, current: Object) -> None:
    meta = made.setdefault("metadata", {})
    if not isinstance(meta, dict):
        raise BadRequestError("metadata must be an object")
    meta.pop("selfLink", None)
    for field in _SERVER_OWNED:
        _keep(meta, current["metadata"], field)
    # Empty and absent mean the same, and a write that changes nothing must not look like one that does.
    for field in ("labels", "annotations", "finalizers", "ownerReferences", "managedFields"):
        if field in meta and not meta[field] and not current["metadata"].get(field):
            _keep(meta, current["metadata"], field)


def _keep(target: dict[str, Any], source: dict[str, Any], field: str) -> None:
    if field in source:
        target[field] = source[field]
    else:
        target.pop(field, None)


def _refuse_new_finalizers(kind: ResourceKind, current: Object, made: Object) -> None:
    if not is_deleting(current):
        return
    added = set(made["metadata"].get("finalizers") or ()) - set(current["metadata"].get("finalizers") or ())
    if added:
        message = f"no new finalizers can be added while the object is being deleted: {', '.join(sorted(added))}"
        raise kind.invalid(name_of(made), [FieldError("metadata.finalizers", message, "FieldValueForbidden")])


def _desired(obj: Object) -> Object:
    return {key: value for key, value in obj.items() if key not in ("metadata", "status")}


def is_released(obj: Object) -> bool:
    """Whether a deleted object has nothing left that holds it."""
    meta = obj["metadata"]
    return is_deleting(obj) and not meta.get("finalizers") and not meta.get("deletionGracePeriodSeconds")


def grace_of(kind: ResourceKind, obj: Object, asked_seconds: int | None) -> int:
    """Seconds between the mark and the removal."""
    if kind.grace_seconds is None:
        return 0
    if asked_seconds is not None:
        return max(0, asked_seconds)
    own = (obj.get("spec") or {}).get("terminationGracePeriodSeconds")
    return int(own) if own is not None else kind.grace_seconds


def marked_object(kind: ResourceKind, current: Object, grace_seconds: int) -> Object | None:
    """``current`` marked as deleted; None where it is already marked with no longer a grace."""
    meta = current["metadata"]
    if is_deleting(current) and int(meta.get("deletionGracePeriodSeconds") or 0) <= grace_seconds:
        return None
    made = copy(current)
    made["metadata"]["deletionTimestamp"] = timestamp(wall_clock() + grace_seconds)
    if kind.grace_seconds is not None:
        made["metadata"]["deletionGracePeriodSeconds"] = grace_seconds
    if counts_generations(kind) and not is_deleting(current):
        made["metadata"]["generation"] = int(meta.get("generation", 1)) + 1
    return made
