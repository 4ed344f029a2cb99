"""Helpers over the plain JSON objects of the API: metadata, names, times, conditions and references.

An object is a ``dict`` shaped as Kubernetes shapes it: ``apiVersion``, ``kind``, ``metadata``, and mostly ``spec`` and
``status``. Times are RFC 3339 in UTC with whole seconds and ``Z``.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, TypeAlias

from nanocloud.ambient import surroundings, wall_clock

Object: TypeAlias = dict[str, Any]

DNS_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
"""RFC 1123, section 2.1: at most 63 characters."""
DNS_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
QUALIFIED_NAME = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
LABEL_VALUE = rf"({QUALIFIED_NAME})?"

_dns_label = re.compile(DNS_LABEL)
_dns_subdomain = re.compile(DNS_SUBDOMAIN)
_qualified_name = re.compile(QUALIFIED_NAME)
# The alphabet of Kubernetes' generated names: no vowels, so that no words appear.
_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def now() -> str:
    """The present as the API writes it: ``2026-11-22T21:56:00Z``."""
    return timestamp(wall_clock())


def timestamp(epoch_seconds: float) -> str:
    return datetime.fromtimestamp(int(epoch_seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: object) -> float | None:
    """Epoch seconds of an RFC 3339 time, None where there is none to read."""
    if not isinstance(text, str):
        return None
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return parsed.timestamp() if parsed.tzinfo else None


def name_of(obj: Object) -> str:
    return str(obj.get("metadata", {}).get("name", ""))


def namespace_of(obj: Object) -> str:
    """Empty for cluster-scoped objects."""
    return str(obj.get("metadata", {}).get("namespace", ""))


def uid_of(obj: Object) -> str:
    return str(obj.get("metadata", {}).get("uid", ""))


def labels_of(obj: Object) -> dict[str, str]:
    return obj.get("metadata", {}).get("labels") or {}


def annotations_of(obj: Object) -> dict[str, str]:
    return obj.get("metadata", {}).get("annotations") or {}


def revision_of(obj: Object) -> int:
    """The mod revision that the object was read at; 0 when it was never stored."""
    return int(obj.get("metadata", {}).get("resourceVersion") or 0)


def is_deleting(obj: Object) -> bool:
    return bool(obj.get("metadata", {}).get("deletionTimestamp"))


def is_dns_label(text: str) -> bool:
    return bool(_dns_label.fullmatch(text))


def is_dns_subdomain(text: str) -> bool:
    return len(text) <= 253 and bool(_dns_subdomain.fullmatch(text))


def is_qualified_name(text: str) -> bool:
    """A label or annotation key: ``name`` or ``dns.subdomain/name``."""
    prefix, slash, name = text.rpartition("/")
    if slash and not is_dns_subdomain(prefix):
        return False
    return len(name) <= 63 and bool(_qualified_name.fullmatch(name))


def is_label_value(text: str) -> bool:
    return text == "" or (len(text) <= 63 and bool(_qualified_name.fullmatch(text)))


def generated_name(prefix: str) -> str:
    """``metadata.generateName`` and five random characters, cut so that the whole stays a label."""
    return prefix[:58] + "".join(surroundings().rng.choice(_SUFFIX_ALPHABET) for _ in range(5))


def reference(obj: Object) -> Object:
    """How Events and statuses point at an object."""
    found = {
        "apiVersion": obj.get("apiVersion", ""),
        "kind": obj.get("kind", ""),
        "name": name_of(obj),
        "namespace": namespace_of(obj),
        "uid": uid_of(obj),
        "resourceVersion": str(obj.get("metadata", {}).get("resourceVersion", "")),
    }
    return {key: value for key, value in found.items() if value}


def owner_uids(obj: Object) -> list[str]:
    """Of the objects that it belongs to."""
    return [str(owner.get("uid")) for owner in obj["metadata"].get("ownerReferences") or []]


def owner_reference(owner: Object, *, controller: bool = True) -> Object:
    """The entry that ``metadata.ownerReferences`` of a dependant holds."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": name_of(owner),
        "uid": uid_of(owner),
        "controller": controller,
        "blockOwnerDeletion": controller,
    }


def condition(obj: Object, kind: str) -> Object | None:
    """The entry of ``status.conditions`` with that ``type``."""
    for entry in (obj.get("status") or {}).get("conditions") or []:
        if entry.get("type") == kind:
            return dict(entry)
    return None


def condition_is_true(obj: Object, kind: str) -> bool:
    found = condition(obj, kind)
    return found is not None and found.get("status") == "True"


def set_condition(
    obj: Object,
    kind: str,
    status: bool | None,
    *,
    reason: str,
    message: str = "",
    at: str | None = None,
    generation: int | None = None,
) -> bool:
    """Write one condition into ``obj``; say whether anything changed.

    ``lastTransitionTime`` moves only with the status. None is ``Unknown``. ``generation`` is the one that it speaks of;
    None: the present one.
    """
    word = "Unknown" if status is None else str(status)
    conditions: list[Object] = obj.setdefault("status", {}).setdefault("conditions", [])
    fresh: Object = {"type": kind, "status": word, "reason": reason, "message": message}
    if "generation" in obj.get("metadata", {}):
        fresh["observedGeneration"] = obj["metadata"]["generation"] if generation is None else generation
    for index, old in enumerate(conditions):
        if old.get("type") == kind:
            same = old.get("status") == word
            fresh["lastTransitionTime"] = old.get("lastTransitionTime") if same else at or now()
            conditions[index] = fresh
            return fresh != old
    fresh["lastTransitionTime"] = at or now()
    conditions.append(fresh)
    return True
