"""What is known of an installed plugin before and after it is loaded."""

from __future__ import annotations

from collections import defaultdict
from enum import Enum
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from importlib.metadata import EntryPoint

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
    names = {_metadata(entry, "Name"): name for name, entries in found.items() for entry in entries}
    for field, chosen in (("allow_plugins", allowed), ("disable_plugins", disabled)):
        for name in chosen:
            if name == CORE:
                if field == "disable_plugins":
                    yield f"node.{field} names {CORE!r}, which is always loaded"
            elif name in names and name not in found:
                yield f"node.{field} names {name!r}, a distribution; its plugin is {names[name]!r}"
            elif name not in found:
                yield f"node.{field} names {name!r}, which is not installed"


def _metadata(entry: EntryPoint, field: str) -> str:
    """Empty where there is none: what an interrupted installation left behind may say nothing."""
    # By ``in`` first: from Python 3.13 on asking for what is not there warns, and is going to raise.
    metadata = None if entry.dist is None else entry.dist.metadata
    return str(metadata[field]) if metadata is not None and field in metadata else ""


def _homepage(entry: EntryPoint) -> str:
    metadata = None if entry.dist is None else entry.dist.metadata
    for labelled in (metadata.get_all("Project-URL") or ()) if metadata is not None else ():
        label, _, url = str(labelled).partition(",")
        if label.strip().lower() in ("homepage", "home", "repository", "source"):
            return url.strip()
    return _metadata(entry, "Home-page")
