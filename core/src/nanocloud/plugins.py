"""PluginHost: finds installed plugins, keeps the tables of what they offer, makes the only raw hook calls.

A plugin that cannot be used never takes the process down. It keeps a record with its distribution and the reason;
the record becomes an error only where the node needs what the plugin would have offered.
"""

from __future__ import annotations

from collections import defaultdict
from enum import Enum
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import pluggy

from nanocloud import __version__, hookspecs
from nanocloud.contracts import STATEMENT, IncompatibleError, check_hooks, check_versions, read_statement
from nanocloud.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import ModuleType

    from nanocloud.config import NodeConfig
    from nanocloud.providers.base import Provider

GROUP = "nanocloud"
P = TypeVar("P", bound="Provider")


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
    version: str
    contracts: Mapping[str, str] = attrs.field(factory=dict)
    """The version of each contract that it states it was built for."""
    hooks: tuple[str, ...] = ()
    state: PluginState = PluginState.ACTIVE
    reason: str = ""


class PluginConflictError(PluginError):
    """Two plugins offer one name; the message names both distributions."""


@attrs.frozen
class Offer:
    """Something a plugin offered, and whose it is."""

    value: Any
    plugin: str
    distribution: str


@attrs.frozen
class Role:
    """A contract of which the node uses exactly one provider."""

    name: str
    hook: str
    default: str | None
    """Provider taken without a choice in the configuration although others are installed."""
    suggestion: str
    """Distribution that fills the role."""


ROLES = {
    role.name: role
    for role in (
        Role("storage", "nanocloud_storage_providers", "sqlite", "nanocloud"),
        Role("runtime", "nanocloud_runtime_providers", None, "nanocloud-runtime-crun"),
        Role("network", "nanocloud_network_providers", None, "nanocloud-cni-bridge"),
        Role("volume", "nanocloud_volume_providers", None, "nanocloud-csi-loop"),
        Role("binding", "nanocloud_binding_providers", "exec", "nanocloud"),
        Role("image", "nanocloud_image_providers", None, "nanocloud-dockyard"),
    )
}


class PluginHost:
    """The plugins of this installation. Building one imports them; nothing else happens."""

    def __init__(
        self,
        *,
        disabled: Sequence[str] = (),
        builtin: ModuleType | None = None,
        installed: Iterable[EntryPoint] | None = None,
    ) -> None:
        self._manager = pluggy.PluginManager("nanocloud")
        self._manager.add_hookspecs(hookspecs)
        self._infos: dict[str, PluginInfo] = {}
        self._tables: dict[tuple[str, type | None], tuple[dict[str, Any], dict[str, Offer]]] = {}
        if builtin is not None:
            self._adopt("core", builtin, "nanocloud", __version__)
        found = entry_points(group=GROUP) if installed is None else installed
        for name, candidates in sorted(_by_name(found).items()):
            self._load(name, candidates, disabled=name in disabled)

    @property
    def plugins(self) -> Sequence[PluginInfo]:
        return tuple(self._infos.values())

    def _load(self, name: str, candidates: list[EntryPoint], *, disabled: bool) -> None:
        distributions = ", ".join(_distribution(entry) for entry in candidates)
        info = PluginInfo(name=name, distribution=distributions, version=_version(candidates[0]))
        if disabled:
            self._infos[name] = attrs.evolve(info, state=PluginState.DISABLED, reason="disabled by the configuration")
        elif name in self._infos:
            reason = f"the name {name!r} is taken by {self._infos[name].distribution}"
            self._infos[f"{name} of {distributions}"] = attrs.evolve(info, state=PluginState.DUPLICATE, reason=reason)
        elif len(candidates) > 1:
            # Which of them is meant cannot be known, and running the wrong one as root is no small matter.
            reason = f"the name {name!r} is offered by {distributions}: uninstall all but one"
            self._infos[name] = attrs.evolve(info, state=PluginState.DUPLICATE, reason=reason)
        else:
            try:
                module = candidates[0].load()
            except (Exception, SystemExit) as exc:
                reason = f"import failed: {type(exc).__name__}: {exc}"
                self._infos[name] = attrs.evolve(info, state=PluginState.BROKEN, reason=reason)
            else:
                self._adopt(name, module, info.distribution, info.version)

    def _adopt(self, name: str, module: ModuleType, distribution: str, release: str) -> None:
        info = PluginInfo(name=name, distribution=distribution, version=release)
        try:
            info = attrs.evolve(info, contracts=read_statement(getattr(module, STATEMENT, None)))
            check_versions(info.contracts)
            hooks = self._register(name, module)
            check_hooks(info.contracts, hooks)
            self._infos[name] = attrs.evolve(info, hooks=hooks)
        except Exception as exc:
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            state = PluginState.INCOMPATIBLE if isinstance(exc, IncompatibleError) else PluginState.BROKEN
            self._infos[name] = attrs.evolve(info, state=state, reason=str(exc))

    def _register(self, name: str, module: ModuleType) -> tuple[str, ...]:
        """The hooks of this node that the module implements, from now on in use."""
        self._manager.register(module, name=name)
        callers = self._manager.get_hookcallers(module) or []
        _check_hooks(callers, module)
        return tuple(sorted(caller.name for caller in callers if caller.has_spec()))

    def call(self, hook: str, **arguments: Any) -> Iterator[Offer]:
        """Every element that the plugins answer to ``hook``, with its owner; a plugin that raises becomes broken."""
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            name = implementation.plugin_name
            info = self._infos[name]
            try:
                passed = [arguments[argument] for argument in implementation.argnames]
                values = list(implementation.function(*passed))
            except Exception as exc:
                reason = f"{hook} raised {type(exc).__name__}: {exc}"
                self._infos[name] = attrs.evolve(info, state=PluginState.BROKEN, reason=reason)
                continue
            for value in values:
                yield Offer(value, name, info.distribution)

    def named(self, hook: str, contract: type | None = None, **arguments: Any) -> dict[str, Offer]:
        """The offers of ``hook`` by their ``name``; asked again with the same arguments, the same offers.

        Raises:
            PluginConflictError: two offers have one name.
        """
        asked, table = self._tables.get((hook, contract), ({}, {}))
        if asked == arguments and asked:
            return dict(table)
        table = {}
        for offer in self.call(hook, **arguments):
            if contract is not None and not isinstance(offer.value, contract):
                self._blame(offer.plugin, f"{hook} gave {type(offer.value).__name__}, which is no {contract.__name__}")
                continue
            name = getattr(offer.value, "name", None)
            if not isinstance(name, str) or not name:
                self._blame(offer.plugin, f"{hook} gave {type(offer.value).__name__}, which has no name")
                continue
            if name in table:
                both = f"{table[name].distribution} and {offer.distribution}"
                raise PluginConflictError(
                    f"{hook}: {name!r} is offered by {both}",
                    hint="disable one in node.disable_plugins or uninstall it",
                )
            table[name] = offer
        self._tables[hook, contract] = arguments, table
        return dict(table)

    def _blame(self, plugin: str, reason: str) -> None:
        self._infos[plugin] = attrs.evolve(self._infos[plugin], state=PluginState.BROKEN, reason=reason)

    def select(self, role: str, contract: type[P], config: NodeConfig) -> P:
        """The one provider of a role.

        Raises:
            PluginError: none is installed, the configured one is unknown, or several are and none is chosen; lists
                the candidates with their distributions, and the plugins that failed with the reason.
        """
        spec = ROLES[role]
        table = self.named(spec.hook, contract, config=config)
        chosen = getattr(config, role, None)
        if chosen is None and spec.default in table:
            chosen = spec.default
        if chosen is None and len(table) == 1:
            (chosen,) = table
        if chosen in table:
            provider = table[chosen].value
            assert isinstance(provider, contract)
            return provider
        raise self._cannot_select(spec, chosen, table)

    def _cannot_select(self, role: Role, chosen: str | None, table: dict[str, Offer]) -> PluginError:
        candidates = ", ".join(f"{name} ({offer.distribution})" for name, offer in sorted(table.items()))
        if chosen is not None:
            return PluginError(
                f"node.{role.name} is {chosen!r}, which no plugin offers{self._excuses()}",
                hint=f"installed: {candidates or 'none'}; install with: pip install {role.suggestion}",
            )
        if table:
            return PluginError(
                f"several {role.name} providers are installed: {candidates}",
                hint=f"choose one as {role.name} under [node] in the configuration or by NANOCLOUD_{role.name.upper()}",
            )
        return self.missing(role.name)

    def missing(self, role: str) -> PluginError:
        """What to say where nothing fills ``role``."""
        return PluginError(
            f"no {role} provider is installed{self._excuses()}",
            hint=f"install one with: pip install {ROLES[role].suggestion} (or 'nanocloud[node]' for the whole set)",
        )

    def _excuses(self) -> str:
        failed = [info for info in self._infos.values() if info.state is not PluginState.ACTIVE]
        listed = "; ".join(f"{i.name} ({i.distribution}) is {i.state.value}: {i.reason}" for i in failed)
        return f" [{listed}]" if listed else ""


def _check_hooks(callers: Sequence[pluggy.HookCaller], module: ModuleType) -> None:
    """Raises PluginError: a hook that this node does not have, or an implementation of a kind that is never called."""
    unknown = []
    for caller in callers:
        for implementation in caller.get_hookimpls():
            if implementation.plugin is not module:
                continue
            if implementation.hookwrapper or implementation.wrapper:
                raise PluginError(f"wraps the hook {caller.name}: hooks are implemented, never wrapped")
            if not caller.has_spec() and not implementation.optionalhook:
                unknown.append(caller.name)
    if unknown:
        raise PluginError(f"implements unknown hooks: {', '.join(sorted(unknown))}")


def _by_name(found: Iterable[EntryPoint]) -> dict[str, list[EntryPoint]]:
    """Entry points by name; one distribution seen twice on the path counts once."""
    table: dict[str, dict[tuple[str, str], EntryPoint]] = defaultdict(dict)
    for entry in found:
        table[entry.name].setdefault((_distribution(entry), entry.value), entry)
    return {name: list(entries.values()) for name, entries in table.items()}


def _distribution(entry: EntryPoint) -> str:
    """Of the entry point; metadata that an interrupted installation left behind may say nothing."""
    return _metadata(entry, "Name")


def _version(entry: EntryPoint) -> str:
    return _metadata(entry, "Version")


def _metadata(entry: EntryPoint, field: str) -> str:
    # By ``in`` first: from Python 3.13 on asking for what is not there warns, and is going to raise.
    metadata = None if entry.dist is None else entry.dist.metadata
    return (metadata[field] if metadata is not None and field in metadata else "") or "unknown"
