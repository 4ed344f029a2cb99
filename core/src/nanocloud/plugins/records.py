"""What is known of an installed plugin before and after it is loaded."""

from __future__ import annotations

import re
from collections import defaultdict
from enum import Enum
from importlib.metadata import distributions, entry_points
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from importlib.metadata import EntryPoint, PackageMetadata

CORE = "core"
"""Name of the plugin that core itself is."""


class PluginState(Enum):
    ACTIVE = "active"
    DISABLED = "disabled"
    BROKEN = "broken"
    INCOMPATIBLE = "incompatible"
    DUPLICATE = "duplicate"


@attrs.frozen(kw_only=True)
class PluginInfo:
    """One row of ``nanocloud plugin list``."""

    name: str
    distribution: str
    """Whose entry point it is; of several that offer the name, all, joined by commas."""
    version: str
    entry_point: str = ""
    """The module; empty for core."""
    summary: str = ""
    homepage: str = ""
    contracts: Mapping[str, str] = attrs.field(factory=dict)
    """The version of each contract that it states it was built for."""
    hooks: tuple[str, ...] = ()
    state: PluginState = PluginState.ACTIVE
    reason: str = ""


def discover(group: str) -> tuple[list[EntryPoint], list[str]]:
    """The entry points of this installation, and a sentence on each distribution whose entry points cannot be read."""
    try:
        return list(entry_points(group=group)), []
    except Exception:  # of one distribution; that function says neither which nor anything of the others
        return _one_by_one(group)


def _one_by_one(group: str) -> tuple[list[EntryPoint], list[str]]:
    found: list[EntryPoint] = []
    notes: list[str] = []
    seen: set[str] = set()
    for distribution in distributions():
        folder = str(getattr(distribution, "_path", "a distribution"))
        try:
            name = distribution.metadata["Name"] or folder
            if name not in seen:  # the first on the path hides the others
                found += distribution.entry_points.select(group=group)
            seen.add(name)
        except Exception as exc:
            notes.append(f"the entry points in {folder} cannot be read: {type(exc).__name__}: {exc}")
    return found, notes


def by_name(found: Iterable[EntryPoint]) -> dict[str, list[EntryPoint]]:
    """Entry points by name, in order; one distribution seen twice on the path counts once."""
    table: dict[str, dict[tuple[str, str], EntryPoint]] = defaultdict(dict)
    for entry in found:
        table[entry.name].setdefault((_metadata(entry, "Name"), entry.value), entry)
    return {name: list(entries.values()) for name, entries in sorted(table.items())}


def describe(entries: Sequence[EntryPoint]) -> PluginInfo:
    """What the metadata says of the distributions that offer one name."""
    first = entries[0]
    return PluginInfo(
        name=first.name,
        distribution=", ".join(_metadata(entry, "Name") or "unknown" for entry in entries),
        version=_metadata(first, "Version") or "unknown",
        entry_point=first.value,
        summary=_metadata(first, "Summary"),
        homepage=_homepage(first),
    )


def odd_choices(
    found: Mapping[str, Sequence[EntryPoint]], *, allowed: Sequence[str], disabled: Sequence[str]
) -> Iterator[str]:
    """What in ``node.allow_plugins`` and ``node.disable_plugins`` has no effect, one sentence each."""
    plugins = {_plain(name): name for name in found}
    owners = {_plain(_metadata(entry, "Name")): name for name, entries in found.items() for entry in entries}
    for field, chosen in (("allow_plugins", allowed), ("disable_plugins", disabled)):
        for name in chosen:
            if name == CORE:
                if field == "disable_plugins":
                    yield f"node.{field} names {CORE!r}, which is always loaded"
            elif name in found:
                continue
            elif _plain(name) in plugins:
                yield f"node.{field} names {name!r}, which is not installed; {plugins[_plain(name)]!r} is"
            elif _plain(name) in owners:
                yield f"node.{field} names {name!r}, a distribution; its plugin is {owners[_plain(name)]!r}"
            else:
                yield f"node.{field} names {name!r}, which is not installed"


def _plain(name: str) -> str:
    """One spelling for all that people take for the same name, as PEP 503 has it for distributions."""
    return re.sub(r"[-_.\s]+", "-", name.strip()).lower()


def _metadata(entry: EntryPoint, field: str) -> str:
    """Empty where there is none: what an interrupted installation left behind may say nothing."""
    # By ``in`` first: from Python 3.13 on asking for what is not there warns, and is going to raise.
    metadata = _all_metadata(entry)
    return str(metadata[field]) if metadata is not None and field in metadata else ""


def _all_metadata(entry: EntryPoint) -> PackageMetadata | None:
    try:
        return None if entry.dist is None else entry.dist.metadata
    except (OSError, TypeError, ValueError):  # no file, or bytes that are no text
        return None


def _homepage(entry: EntryPoint) -> str:
    metadata = _all_metadata(entry)
    for labelled in (metadata.get_all("Project-URL") or ()) if metadata is not None else ():
        label, _, url = str(labelled).partition(",")
        if label.strip().lower() in ("homepage", "home", "repository", "source"):
            return url.strip()
    return _metadata(entry, "Home-page")
