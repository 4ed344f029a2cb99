"""Which contracts a plugin was built for, and whether this node keeps them. Pure.

A contract has a version MAJOR.MINOR of its own. A plugin states what it was built for, and is usable where the major
is equal and its minor is not above the node's: what is new in a minor version is optional, so an older plugin never
misses it, and a newer one may count on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from nanocloud.errors import PluginError
from nanocloud.providers import CONTRACTS

STATEMENT = "NANOCLOUD_CONTRACTS"
EXTENSION = "extension"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_VERSION = re.compile(r"(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})")


def contract_of(hook: str) -> str:
    """The contract that a hook belongs to: that of its providers, and ``extension`` for all others."""
    name = hook.removeprefix("nanocloud_").removesuffix("_providers")
    return name if hook.endswith("_providers") and name in CONTRACTS else EXTENSION


class IncompatibleError(PluginError):
    """The plugin was built for contracts that this node does not keep, or does not say for which."""


def read_statement(stated: object) -> Mapping[str, str]:
    """What a plugin module states, checked for its form.

    Raises:
        IncompatibleError: it states nothing, or something that is no mapping of contract names to versions.
    """
    if stated is None:
        raise IncompatibleError(f"states no {STATEMENT}, the contracts it was built for")
    if not isinstance(stated, Mapping):
        raise IncompatibleError(f"{STATEMENT} is {_shown(stated)}; expected a mapping of contracts to versions")
    for name, version in stated.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise IncompatibleError(f"{STATEMENT} names the contract {_shown(name)}; expected a word such as 'runtime'")
        if not isinstance(version, str) or not _VERSION.fullmatch(version):
            raise IncompatibleError(f"{STATEMENT} states {name} {_shown(version)}; expected a version such as '1.0'")
    return dict(stated)


def check_versions(stated: Mapping[str, str]) -> None:
    """Compare what a plugin was built for with what this node speaks.

    A contract that this node does not have is no fault: a hook of a newer node may be marked as optional.

    Raises:
        IncompatibleError: names every contract that does not fit, with both versions.
    """
    reasons = [
        f"built for {name} contract {version}; this node speaks {CONTRACTS[name]}"
        for name, version in stated.items()
        if name in CONTRACTS and not _usable(version, CONTRACTS[name])
    ]
    if reasons:
        raise IncompatibleError(" and ".join(reasons))


def check_hooks(stated: Mapping[str, str], hooks: Iterable[str]) -> None:
    """See that a plugin stated the contract of every hook that it implements.

    Raises:
        IncompatibleError: names every hook and contract that it did not.
    """
    reasons = [
        f"implements {hook} but states no {name} contract; this node speaks {CONTRACTS[name]}"
        for hook in hooks
        if (name := contract_of(hook)) not in stated
    ]
    if reasons:
        raise IncompatibleError(" and ".join(reasons))


def _usable(built_for: str, spoken: str) -> bool:
    major, minor = _numbers(built_for)
    node_major, node_minor = _numbers(spoken)
    return major == node_major and minor <= node_minor


def _numbers(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major), int(minor)


def _shown(value: object) -> str:
    try:
        return f"{value!r:.60}" if isinstance(value, str | int | float) else type(value).__name__
    except ValueError:  # a number with more digits than Python shows
        return type(value).__name__
