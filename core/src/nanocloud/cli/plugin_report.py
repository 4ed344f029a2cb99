"""What ``plugin list`` and ``plugin show`` say of plugins, as data and as text."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from nanocloud.output import printable, table
from nanocloud.plugins import PluginState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nanocloud.plugins import PluginInfo
    from nanocloud.plugins.offers import OfferedProvider


def row(info: PluginInfo) -> dict[str, Any]:
    """One plugin in ``plugin list -o json``."""
    return {
        "name": info.name,
        "distribution": info.distribution,
        "version": info.version,
        "state": info.state.value,
        "reason": info.reason,
        "contracts": dict(info.contracts),
        "hooks": list(info.hooks),
    }


def rows_as_table(infos: Sequence[PluginInfo]) -> str:
    headers = ("NAME", "DISTRIBUTION", "VERSION", "STATE", "CONTRACTS", "HOOKS")
    cells = [
        (
            info.name,
            info.distribution,
            info.version,
            info.state.value,
            _contracts(info) or "-",
            info.reason if info.state is not PluginState.ACTIVE else _hooks(info),
        )
        for info in infos
    ]
    return table(headers, cells)


def details(info: PluginInfo, providers: Sequence[OfferedProvider]) -> dict[str, Any]:
    """One plugin in ``plugin show -o json``."""
    offered = [{"contract": p.contract, "name": p.name, "chosen": p.chosen} for p in providers]
    return row(info) | {
        "advice": advice(info),
        "entryPoint": info.entry_point,
        "summary": info.summary,
        "homepage": info.homepage,
        "providers": offered,
    }


def details_as_text(info: PluginInfo, providers: Sequence[OfferedProvider]) -> str:
    facts = [
        ("Name", info.name),
        ("State", info.state.value),
        ("Why", info.reason),
        ("What to do", advice(info)),
        ("Distribution", f"{info.distribution} {info.version}"),
        ("Summary", info.summary),
        ("Homepage", info.homepage),
        ("Entry point", info.entry_point),
        ("Contracts", _contracts(info)),
        ("Hooks", _hooks(info)),
    ]
    text = "\n".join(f"{label + ':':14}{printable(value)}" for label, value in facts if value)
    if not providers:
        return text
    cells = [(p.contract, p.name, "yes" if p.chosen else "no") for p in providers]
    return f"{text}\n\nProviders\n{table(('CONTRACT', 'NAME', 'CHOSEN'), cells)}"


def advice(info: PluginInfo) -> str:
    """What brings the plugin into use; empty if it is."""
    match info.state:
        case PluginState.ACTIVE:
            return ""
        case PluginState.DISABLED:
            field = "allow_plugins" if "allow_plugins" in info.reason else "disable_plugins"
            verb = "name it in" if field == "allow_plugins" else "take it out of"
            return f"{verb} node.{field} (or NANOCLOUD_{field.upper()}) and start the server again"
        case PluginState.INCOMPATIBLE:
            return f"install a release of {info.distribution} for the contracts of this node, or update nanocloud"
        case PluginState.DUPLICATE:
            return f"uninstall all but one of the distributions that offer the name {info.name!r}"
        case PluginState.BROKEN if info.reason.startswith("import "):
            return f"see the whole error with: {sys.executable} -c 'import {info.entry_point.partition(':')[0]}'"
        case PluginState.BROKEN:
            asked = info.reason.startswith("nanocloud_") and " raised " in info.reason
            first = "check its table in the configuration, or " if asked else ""
            where = f": {info.homepage}" if info.homepage else ""
            return f"{first}tell its authors{where}"


def _contracts(info: PluginInfo) -> str:
    return ", ".join(f"{name} {version}" for name, version in info.contracts.items())


def _hooks(info: PluginInfo) -> str:
    return ", ".join(hook.removeprefix("nanocloud_") for hook in info.hooks)
