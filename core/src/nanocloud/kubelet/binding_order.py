"""Which bindings of one target have to wait for which; pure.

What a command makes belongs to one bundle. So a name that another bundle owns is refused, and what is being revoked is
gone before it is made again. Two commands of one bundle never run at once in one target.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from nanocloud.models.binding import BINDING, BindingAction, spec_of
from nanocloud.models.meta import name_of
from nanocloud.objects import Grouping

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from nanocloud.models.binding import BindingSpec
    from nanocloud.models.meta import Object

MAX_ATTEMPTS = 5
"""After so many failures a binding is given up; a revocation is still tried, but nothing waits for it."""


@attrs.frozen(kw_only=True)
class Way:
    """What a binding finds before it."""

    is_free: bool = True
    conflict: str = ""
    """Why it can never run while the others are as they are."""
    superseded: tuple[Object, ...] = ()
    """Revocations that were given up, of what this binding makes again: they must not come true later."""


def party_mark(target: str, bundle: str) -> str:
    return "\0".join((target, bundle))


def owned_mark(target: str, command: str, position: str, value: str) -> str:
    """Of one name that a command makes in its target; who shares it meets at the same mark."""
    return "\0".join((target, command, position, value))


def marks_of(binding: Object) -> list[str]:
    """Bindings that can be in each other's way have a mark in common."""
    spec = binding["spec"]
    target, owned = spec["target"], spec.get("owned") or {}
    owned_marks = (owned_mark(target, spec["command"], position, value) for position, value in owned.items())
    return [party_mark(target, spec["bundle"]), *owned_marks]


BY_MARK = Grouping(BINDING, marks_of)


def is_revocation(spec: BindingSpec) -> bool:
    return spec.action == BindingAction.REVOKE.value


def way_of(binding: Object, spec: BindingSpec, others: Iterable[Object], running: Mapping[str, BindingSpec]) -> Way:
    """Look at the other bindings that have a mark in common with this one.

    Args:
        running: those of the target whose command runs now, by name; the object may be gone already.
    """
    if any(other.bundle == spec.bundle for name, other in running.items() if name != name_of(binding)):
        return Way(is_free=False)
    superseded: list[Object] = []
    for other in others:
        if name_of(other) == name_of(binding):
            continue
        found = spec_of(other)
        if is_revocation(spec):
            continue
        if is_revocation(found):
            if found.bundle != spec.bundle and not found.shares_names_with(spec):
                continue
            if _attempts(other) < MAX_ATTEMPTS or name_of(other) in running:
                return Way(is_free=False)
            if found.bundle != spec.bundle:
                return Way(conflict=_conflict(spec, found, "which was removed but could not be revoked"))
            superseded.append(other)
        elif found.bundle != spec.bundle and has_begun(other) and found.shares_names_with(spec):
            return Way(conflict=_conflict(spec, found))
    return Way(superseded=tuple(superseded))


def has_begun(binding: Object) -> bool:
    """Whether its command may have done something, also for a run before; one that was refused has not run."""
    return bool((binding.get("status") or {}).get("startedAt"))


def _attempts(binding: Object) -> int:
    return int((binding.get("status") or {}).get("attempts", 0))


def _conflict(spec: BindingSpec, other: BindingSpec, note: str = "") -> str:
    shared = sorted(spec.owned.items() & other.owned.items())
    names = ", ".join(repr(value) for _, value in shared)
    return f"{names} in {spec.target} belongs to {other.bundle}" + (f", {note}" if note else "")
