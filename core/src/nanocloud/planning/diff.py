"""What a plan holds and what changes between two plans, for ``install --dry-run`` and ``bundle diff``.

A change that means more than it says has a note: data that stays behind, a pod that is replaced.

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


_ORDER = ("image", "state", "service", "option", "binding", "volume", "port", "secret", "tls", "security", "pod")
_MARKS = {ChangeKind.ADDED: "+", ChangeKind.REMOVED: "-", ChangeKind.CHANGED: "~"}


@attrs.frozen(kw_only=True)
class Item:
    """One line of a plan: compared by ``exact``, shown as ``text``."""

    text: str
    exact: Any = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class Change:
    section: str
    """``image``, ``state``, ``service``, ``option``, ``binding``, ``volume``, ``port``, ``secret``, ``tls``,
    ``security`` or ``pod``; of a removal also ``bundle`` and ``dependant``."""
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

    def joined(self, more: tuple[Change, ...]) -> PlanDiff:
        """With more changes, each in its place."""
        return PlanDiff(changes=tuple(sorted([*self.changes, *more], key=lambda c: _ORDER.index(c.section))))

    def without(self, section: str) -> PlanDiff:
        return PlanDiff(changes=tuple(change for change in self.changes if change.section != section))

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
        change = Change(
            section=section,
            name=name,
            kind=kind,
            before=one.text if one else "",
            after=other.text if other else "",
        )
        changes.append(change if before is None or after is None else _with_note(change, before, after))
    if before is not None and after is not None:
        changes += _running(before, after)
    return PlanDiff(changes=()).joined(tuple(changes))


def state_change(before: bool | None, after: bool) -> tuple[Change, ...]:
    """Whether the service runs, before and after; None is a bundle that does not exist."""
    words = {None: "", True: "running", False: "stopped"}
    if before is after or (before is None and after):
        return ()
    kind = ChangeKind.ADDED if before is None else ChangeKind.CHANGED
    return (Change(section="state", name="service", kind=kind, before=words[before], after=words[after]),)


def _running(before: WorkloadPlan, after: WorkloadPlan) -> list[Change]:
    """What happens that no item shows: a new pod, and bindings that run once more with the same arguments."""
    found = []
    done = {step.id: step for step in before.bindings if not step.pending}
    for step in after.pending_bindings:
        if (same := done.get(step.id)) and same.fingerprint == step.fingerprint:
            text = f"{' '.join((step.command, *step.words))} in {step.target}"
            found.append(Change(section="binding", name=step.id, kind=ChangeKind.CHANGED, before="done", after=text))
    if before.pod_hash != after.pod_hash or _secret_values(before) != _secret_values(after):
        pod = after.pod["metadata"]["name"]
        note = "the service is away for a moment"
        found.append(
            Change(section="pod", name=pod, kind=ChangeKind.CHANGED, before="as it is", after="replaced", note=note)
        )
    return found


def _secret_values(plan: WorkloadPlan) -> dict[str, str]:
    return {name: option.value for name, option in plan.options.items() if option.secret}


def _with_note(change: Change, before: WorkloadPlan, after: WorkloadPlan) -> Change:
    """What it means for data that exists."""
    note = ""
    match change.section, change.kind:
        case "service", ChangeKind.CHANGED | ChangeKind.REMOVED:
            bundle = next(s.bundle for s in before.services if s.option == change.name)
            note = f"data in {bundle} does not come along"
        case "binding", ChangeKind.REMOVED:
            step = next(step for step in before.bindings if step.id == change.name)
            note = "is revoked" if step.revocable else f"what it made in {step.target} stays there"
        case "volume", ChangeKind.CHANGED:
            note = "the same volume with its data, mounted elsewhere"
        case "volume", ChangeKind.REMOVED:
            note = "no longer mounted; it stays with its data until the service is uninstalled"
    return attrs.evolve(change, note=note)


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
        exact = claim.size_bytes, claim.mount_path, claim.encryption_key, claim.fs_type
        yield item("volume", claim.name, f"{claim.size} at {claim.mount_path}{key}", exact)
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
