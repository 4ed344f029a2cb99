"""What goes when a bundle is uninstalled, as data: for ``uninstall --dry-run``, before anything is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from nanocloud.planning.diff import MASK, Change, ChangeKind, PlanDiff

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from nanocloud.planning.profile import BindingRecord


@attrs.frozen(kw_only=True)
class RemovedVolume:
    name: str
    """Of the claim."""
    size: str
    """Kubernetes quantity."""
    mount_path: str = ""
    """Empty where it is not known."""


@attrs.frozen(kw_only=True)
class RemovedSecret:
    name: str
    keys: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Removal:
    """One bundle that goes, with everything that was made for it."""

    bundle: str
    service: str
    because_of: str | None = None
    """The bundle that it was installed for and goes with; None for the one that is uninstalled itself."""
    pod: str | None = None
    volumes: tuple[RemovedVolume, ...] = ()
    secrets: tuple[RemovedSecret, ...] = ()
    bindings: tuple[tuple[str, BindingRecord], ...] = ()
    """Step id and record: what the bundle has in other services."""
    used_by: tuple[str, ...] = ()
    """Bundles that stay and have selected it."""

    @property
    def reason(self) -> str:
        """Why it goes; empty for the one that is uninstalled itself."""
        return f"installed for {self.because_of}, and nothing else uses it" if self.because_of else ""


def removal_changes(removal: Removal, leaving: Collection[str]) -> PlanDiff:
    """One change a thing that goes. ``leaving`` are the bundles that go together: what is in them goes with them."""
    return PlanDiff(changes=tuple(_changes(removal, leaving)))


def _changes(removal: Removal, leaving: Collection[str]) -> Iterator[Change]:
    yield _removed("bundle", removal.bundle, f"service {removal.service}")
    for user in removal.used_by:
        yield Change(
            section="dependant",
            name=user,
            kind=ChangeKind.CHANGED,
            before=f"uses {removal.bundle}",
            after=f"is without {removal.bundle}",
        )
    if removal.pod:
        yield _removed("pod", removal.pod, "stops")
    for step, record in removal.bindings:
        yield _removed("binding", step, f"{_shown(record)} in {record.target}", _fate(record, leaving))
    for volume in removal.volumes:
        where = f" at {volume.mount_path}" if volume.mount_path else ""
        yield _removed("volume", volume.name, f"{volume.size}{where}", "its data is lost")
    for secret in removal.secrets:
        yield _removed("secret", secret.name, ", ".join(secret.keys))


def _removed(section: str, name: str, before: str, note: str = "") -> Change:
    return Change(section=section, name=name, kind=ChangeKind.REMOVED, before=before, note=note)


def _shown(record: BindingRecord) -> str:
    return " ".join((record.command, *(MASK if argument is None else argument for argument in record.arguments)))


def _fate(record: BindingRecord, leaving: Collection[str]) -> str:
    if record.target in leaving:
        return f"goes with {record.target}"
    return "is revoked" if record.revocable else f"stays: {record.target} has no command to revoke it"
