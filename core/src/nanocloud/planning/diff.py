"""What a plan holds and what changes between two plans, for ``install --dry-run`` and ``bundle diff``.

Secrets are masked in every form, yet a changed secret is reported as changed. Text may hold what an untrusted label
says, so everything that is not printable is escaped before it reaches a terminal.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from nanocloud.planning.workload import WorkloadPlan

MASK = "********"


class ChangeKind(enum.Enum):
    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


_MARKS = {ChangeKind.ADDED: "+", ChangeKind.REMOVED: "-", ChangeKind.CHANGED: "~"}


@attrs.frozen(kw_only=True)
class Item:
    """One line of a plan: compared by ``exact``, shown as ``text``."""

    text: str
    exact: Any = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class Change:
    section: str
    """``image``, ``state``, ``service``, ``option``, ``binding``, ``volume``, ``port``, ``secret``, ``tls`` or
    ``security``; of a removal also ``bundle``, ``dependant`` and ``pod``."""
    name: str
    kind: ChangeKind
    before: str = ""
    after: str = ""
    note: str = ""
    """What the change means, where that is not plain: data that does not come along."""


@attrs.frozen(kw_only=True)
class PlanDiff:
    """Empty (and false) when the plans ask for the same."""

    changes: tuple[Change, ...]

    def __bool__(self) -> bool:
        return bool(self.changes)

    def text(self) -> str:
        """One line a change: ``+``, ``-`` or ``~``."""
        return "\n".join(_line(change) for change in self.changes) or "no changes"

    def to_json(self) -> list[dict[str, str]]:
        return [
            {"section": c.section, "name": c.name, "change": c.kind.value}
            | ({"before": c.before} if c.kind is not ChangeKind.ADDED else {})
            | ({"after": c.after} if c.kind is not ChangeKind.REMOVED else {})
            | ({"note": c.note} if c.note else {})
            for c in self.changes
        ]


def diff(before: WorkloadPlan | None, after: WorkloadPlan | None) -> PlanDiff:
    """From one plan to the other; None is a bundle that does not exist."""
    old = {} if before is None else dict(_items(before))
    new = {} if after is None else dict(_items(after))
    changes = []
    for section, name in [*old, *(key for key in new if key not in old)]:
        one, other = old.get((section, name)), new.get((section, name))
        if one and other and one.exact == other.exact:
            continue
        kind = ChangeKind.CHANGED if one and other else ChangeKind.REMOVED if one else ChangeKind.ADDED
        changes.append(
            Change(
                section=section,
                name=name,
                kind=kind,
                before=one.text if one else "",
                after=other.text if other else "",
            )
        )
    order = ("image", "service", "option", "binding", "volume", "port", "secret", "tls", "security")
    return PlanDiff(changes=tuple(sorted(changes, key=lambda change: order.index(change.section))))


def describe(plan: WorkloadPlan) -> dict[str, Any]:
    """The plan as JSON for people and programs; secrets are masked."""
    return {
        "namespace": plan.namespace,
        "bundle": plan.bundle,
        "service": plan.service,
        "image": plan.image,
        "options": {
            name: {"value": option.shown, "source": option.source} | ({"secret": True} if option.secret else {})
            for name, option in plan.options.items()
        },
        "services": [{"option": s.option, "bundle": s.bundle, "installed": s.installed} for s in plan.services],
        "servicesToAdd": list(plan.services_to_add),
        "bindings": [
            {"id": b.id, "target": b.target, "command": b.command, "arguments": list(b.words), "pending": b.pending}
            for b in plan.bindings
        ],
        "volumes": [
            {"claim": c.name, "size": c.size, "mountPath": c.mount_path}
            | ({"encryptionKey": c.encryption_key} if c.encryption_key else {})
            for c in plan.claims
        ],
        "ports": [str(port) for port in plan.ports],
        "secrets": [{"name": s.name, "keys": sorted(s.values)} for s in plan.secrets],
        "tls": plan.tls_secret is not None,
        "security": _security(plan),
    }


def _items(plan: WorkloadPlan) -> Iterator[tuple[tuple[str, str], Item]]:
    def item(section: str, name: str, text: str, exact: object = None) -> tuple[tuple[str, str], Item]:
        return (section, name), Item(text=text, exact=text if exact is None else exact)

    yield item("image", plan.bundle, plan.image)
    for service in plan.services:
        # Whether it is here already says nothing about what the bundle asks for.
        note = "" if service.installed else " (to be installed)"
        yield item("service", service.option, f"{service.bundle}{note}", service.bundle)
    for name, option in plan.options.items():
        yield item("option", name, f"{option.shown} ({option.source})", (option.value, option.secret))
    for step in plan.bindings:
        text = f"{' '.join((step.command, *step.words))} in {step.target}"
        yield item("binding", step.id, text, (text, step.fingerprint))
    for claim in plan.claims:
        key = f", encrypted with {claim.encryption_key}" if claim.encryption_key else ""
        yield item("volume", claim.name, f"{claim.size} at {claim.mount_path}{key}", claim)
    for port in plan.ports:
        yield item("port", str(port), str(port))
    for secret in plan.secrets:
        yield item("secret", secret.name, ", ".join(sorted(secret.values)))
    if plan.tls_secret:
        yield item("tls", plan.tls_secret, "certificate of the node's CA")
    for name, value in _security(plan).items():
        yield item("security", name, value if isinstance(value, str) else ", ".join(value))


def _security(plan: WorkloadPlan) -> Mapping[str, str | list[str]]:
    context = plan.pod["spec"]["containers"][0]["securityContext"]
    found: dict[str, str | list[str]] = {}
    if added := context["capabilities"].get("add"):
        found["capabilities"] = added
    if context.get("privileged"):
        found["privileged"] = "true"
    if profile := context.get("seccompProfile"):
        found["seccompProfile"] = profile.get("localhostProfile") or profile["type"]
    return found


def _line(change: Change) -> str:
    head = f"{_MARKS[change.kind]} {change.section}"
    name = "" if change.section == "port" else f" {printable(change.name)}:"
    note = f" ({printable(change.note)})" if change.note else ""
    if change.kind is ChangeKind.CHANGED:
        return f"{head}{name} {printable(change.before)} -> {printable(change.after)}{note}"
    return f"{head}{name} {printable(change.after or change.before)}{note}"


def printable(text: str) -> str:
    """On one line, with every other character escaped: a label must not move the reader's cursor."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
