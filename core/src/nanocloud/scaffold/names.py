"""The names of a new plugin: one word given, all others follow from it."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution
from typing import TYPE_CHECKING

import attrs

from nanocloud.errors import AlreadyExistsError, UsageError
from nanocloud.macros import BuiltinMacros
from nanocloud.plugins import ROLES
from nanocloud.plugins.host import GROUP
from nanocloud.plugins.records import describe, discover

if TYPE_CHECKING:
    from collections.abc import Collection

PREFIX = "nanocloud-"
_LONGEST = 63
# An RFC 1123 label, for the configuration names providers by it, that PEP 503 leaves as it is.
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_RESERVED = frozenset(
    {"core", BuiltinMacros().name, *(role.default for role in ROLES.values() if role.default is not None)}
)
# Folders of the node's and of our plugins, below state_dir or run_dir: a provider gets one named as its plugin.
_FOLDERS = frozenset({"containers", "images", "keyspace", "logs", "netns", "network", "runtime", "volumes"})


@attrs.frozen
class PluginName:
    """A name that was checked: of the plugin, its entry point, and each provider that it offers."""

    name: str

    @property
    def distribution(self) -> str:
        return PREFIX + self.name

    @property
    def package(self) -> str:
        return self.distribution.replace("-", "_")

    @property
    def macro(self) -> str:
        return self.name.replace("-", "_")

    def class_of(self, contract: str, *, alone: bool, taken: Collection[str]) -> str:
        """``LmdbStorage`` of ``lmdb``; ``RuntimeRunc`` of ``runtime-runc``, which says the contract itself, unless the
        plugin fills others too. ``OwnImage`` where ``Image`` is among the names that its module imports."""
        words = self.name.split("-")
        made = "".join(word.capitalize() for word in (words if alone and contract in words else [*words, contract]))
        return f"Own{made}" if made in taken else made


def plugin_name(name: str) -> PluginName:
    """Check a name.

    Raises:
        UsageError: it cannot be one.
        AlreadyExistsError: core has it, or something installed here.
    """
    if name.startswith(PREFIX):
        hint = f"{PREFIX} is put before the name of the distribution: say {name.removeprefix(PREFIX)}"
        raise UsageError(f"{name!r} names the distribution, not the plugin", hint=hint)
    if len(name) > _LONGEST or not _NAME.fullmatch(name):
        rule = f"words of a-z and 0-9 joined by single '-', beginning with a letter, at most {_LONGEST} characters"
        raise UsageError(f"{name[:80]!r} is not a plugin name: {rule}")
    if name in _RESERVED:
        raise AlreadyExistsError(f"{name!r} is a name of core")
    if name in _FOLDERS:
        raise AlreadyExistsError(f"{name!r} is the name of a folder of the node; say whose {name} it is")
    made = PluginName(name)
    installed, _ = discover(GROUP)
    for entry in installed:
        if entry.name == name:
            raise AlreadyExistsError(f"a plugin {name!r} is installed: {describe([entry]).distribution}")
    try:
        distribution(made.distribution)
    except PackageNotFoundError:
        return made
    raise AlreadyExistsError(f"a distribution {made.distribution!r} is installed")
