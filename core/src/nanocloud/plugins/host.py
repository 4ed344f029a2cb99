"""PluginHost: finds installed plugins, keeps the tables of what they offer, makes the only raw hook calls.

A plugin that cannot be used never takes the process down. It keeps a record with its distribution and the reason;
the record becomes an error only where the node needs what the plugin would have offered. Imports, and hooks that take
the configuration, are tried in a child process first (``trial.py``); all of a plugin's code that runs here is guarded
(``guard.py``).
"""

from __future__ import annotations

import sys
from functools import partial
from importlib.metadata import EntryPoint
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import pluggy

from nanocloud import __version__, hookspecs
from nanocloud.contracts import STATEMENT, IncompatibleError, check_hooks, check_versions, read_statement
from nanocloud.errors import PluginError
from nanocloud.models.meta import is_dns_label
from nanocloud.output import printable
from nanocloud.plugins.guard import FaultError, guarded, undivided
from nanocloud.plugins.hooks import CONFIGURED, check_arguments, check_implementations
from nanocloud.plugins.records import CORE, PluginInfo, PluginState, by_name, describe, discover, odd_choices
from nanocloud.plugins.trial import faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import ModuleType

    from nanocloud.config import NodeConfig
    from nanocloud.providers.base import Provider

GROUP = "nanocloud"
PATIENCE_SECONDS = 10.0
"""How long an import or a hook of a plugin may take."""
MOST_ANSWERS = 10_000
_MOST_CHARACTERS = 1000
P = TypeVar("P", bound="Provider")


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
    """The plugins of this installation. Building one imports them; nothing else happens.

    Args:
        allowed: names of the only plugins that are loaded beside core's own; None for all.
        disabled: names of plugins that are not loaded, even where they are allowed.
        builtin: core's own plugin.
        installed: entry points, where not those of this installation are meant.
        patience_seconds: how long an import or a hook may take.
        tried: the imports were tried in a child process before, or this is the child.
        config: what to try the hooks with that take it, in that child; without it only the imports are tried.
    """

    def __init__(
        self,
        *,
        allowed: Sequence[str] | None = None,
        disabled: Sequence[str] = (),
        builtin: ModuleType | None = None,
        installed: Iterable[EntryPoint] | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
        tried: bool = False,
        config: NodeConfig | None = None,
    ) -> None:
        self._manager = pluggy.PluginManager("nanocloud")
        self._manager.add_hookspecs(hookspecs)
        self._infos: dict[str, PluginInfo] = {}
        self._tables: dict[tuple[str, type | None], tuple[dict[str, Any], dict[str, Offer]]] = {}
        self._patience = patience_seconds
        if builtin is not None:
            self._infos[CORE] = PluginInfo(
                name=CORE, distribution="nanocloud", version=__version__, summary="What core itself offers."
            )
            self._adopt(CORE, builtin)
        entries, unread = discover(GROUP) if installed is None else (installed, [])
        found = by_name(entries)
        self._notes = (*unread, *odd_choices(found, allowed=allowed or (), disabled=disabled))
        wanted = [entries[0] for entries in found.values() if self._record(entries, allowed, disabled)]
        self._load(wanted, {} if tried else self._try(wanted, config))

    @property
    def plugins(self) -> Sequence[PluginInfo]:
        return tuple(self._infos.values())

    @property
    def notes(self) -> Sequence[str]:
        """What is odd in the choice of plugins, one sentence each; nothing that keeps the node from starting."""
        return self._notes

    def _record(self, entries: Sequence[EntryPoint], allowed: Sequence[str] | None, disabled: Sequence[str]) -> bool:
        """Keep a record of the plugin that these entry points, all of one name, offer; whether it is to be loaded."""
        info = describe(entries)
        key, state, reason = info.name, PluginState.DISABLED, ""
        if info.name in self._infos:
            key, state = f"{info.name} of {info.distribution}", PluginState.DUPLICATE
            reason = f"the name {info.name!r} is taken by {self._infos[info.name].distribution}"
        elif info.name in disabled:
            reason = "named in node.disable_plugins"
        elif allowed is not None and info.name not in allowed:
            reason = "not in node.allow_plugins"
        elif len(entries) > 1:
            # Which of them is meant cannot be known, and running the wrong one as root is no small matter.
            state, reason = PluginState.DUPLICATE, f"the name is offered by {info.distribution}: uninstall all but one"
        elif not EntryPoint.pattern.match(entries[0].value):
            state, reason = PluginState.BROKEN, f"its entry point {entries[0].value[:80]!r} names no module"
        else:
            state = PluginState.ACTIVE
        self._infos[key] = attrs.evolve(info, state=state, reason=reason)
        return state is PluginState.ACTIVE

    def _try(self, entries: Sequence[EntryPoint], config: NodeConfig | None) -> Mapping[str, str]:
        # What was imported before cannot hang any more.
        untried = [entry for entry in entries if entry.value.partition(":")[0] not in sys.modules]
        return faults(untried, partial(_rehearse, config, self._patience), seconds=self._patience)

    def _load(self, entries: Sequence[EntryPoint], faulty: Mapping[str, str]) -> None:
        for entry in entries:
            if entry.name in faulty:
                self.blame(entry.name, faulty[entry.name])
                continue
            try:
                module = guarded(entry.load, seconds=self._patience)
            except FaultError as fault:
                self.blame(entry.name, f"import {fault}")
            else:
                self._adopt(entry.name, module)

    def _adopt(self, name: str, module: object) -> None:
        """Take a plugin's module into use; looking at it may run code of the plugin."""
        try:
            guarded(partial(self._read, name, module), seconds=self._patience)
        except FaultError as fault:
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            cause = fault.__cause__
            state = PluginState.INCOMPATIBLE if isinstance(cause, IncompatibleError) else PluginState.BROKEN
            own = type(cause) in (PluginError, IncompatibleError)
            self.blame(name, str(cause) if own else f"its module {fault}", state)

    def _read(self, name: str, module: object) -> None:
        stated = read_statement(getattr(module, STATEMENT, None))
        self._infos[name] = attrs.evolve(self._infos[name], contracts=stated)
        check_versions(stated)
        hooks = self._register(name, module)
        check_hooks(stated, hooks)
        self._infos[name] = attrs.evolve(self._infos[name], hooks=hooks)

    def _register(self, name: str, module: object) -> tuple[str, ...]:
        """The hooks of this node that the module implements, from now on in use."""
        if (other := self._manager.get_name(module)) is not None:
            raise PluginError(f"its module is that of the plugin {other!r}")
        check_arguments(module)
        self._manager.register(module, name=name)
        callers = self._manager.get_hookcallers(module) or []
        check_implementations(callers, module)
        return tuple(sorted(caller.name for caller in callers if caller.has_spec()))

    def blame(self, plugin: str, reason: str, state: PluginState = PluginState.BROKEN) -> None:
        """Keep the reason why a plugin is not what it should be: one line, whatever the plugin put into it."""
        shown = printable(reason)
        if len(shown) > _MOST_CHARACTERS:
            shown = f"{shown[:_MOST_CHARACTERS]}..."
        self._infos[plugin] = attrs.evolve(self._infos[plugin], state=state, reason=shown)

    def owners(self, hook: str) -> Sequence[str]:
        """Names of the plugins that implement ``hook``, in the order in which they are asked."""
        return [implementation.plugin_name for implementation in getattr(self._manager.hook, hook).get_hookimpls()]

    def call(self, hook: str, offered: type | None = None, **arguments: Any) -> Iterator[Offer]:
        """Every element that the plugins answer to ``hook``, with its owner.

        A plugin becomes broken whose hook raises or does not end; so does one that gives what is no ``offered``, and
        that is left out. The others go on.
        """
        for plugin in self.owners(hook):
            yield from self.ask(plugin, hook, offered, **arguments)

    def ask(self, plugin: str, hook: str, offered: type | None = None, **arguments: Any) -> Iterator[Offer]:
        """As ``call``, of one of the hook's owners."""
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            if implementation.plugin_name != plugin:
                continue
            passed = [arguments[argument] for argument in implementation.argnames]
            try:
                values = guarded(partial(_answers, implementation.function, passed), seconds=self._patience)
            except FaultError as fault:
                self.blame(plugin, f"{hook} {fault}")
                continue
            for value in values:
                if offered is not None and not self._is_a(value, offered):
                    given = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
                    self.blame(plugin, f"{hook} gave {given}, which is no {offered.__name__}")
                else:
                    yield Offer(value, plugin, self._infos[plugin].distribution)

    def _is_a(self, value: object, offered: type) -> bool:
        """Asking may run code of the plugin: ``isinstance`` looks at attributes for a protocol."""
        try:
            return guarded(partial(isinstance, value, offered), seconds=self._patience)
        except FaultError:
            return False

    def named(self, hook: str, offered: type | None = None, **arguments: Any) -> dict[str, Offer]:
        """The offers of ``hook`` by their ``name``; asked again with the same arguments, the same offers.

        Raises:
            PluginConflictError: two offers have one name.
        """
        asked, table = self._tables.get((hook, offered), ({}, {}))
        if asked == arguments and asked:
            return dict(table)
        table = {}
        for offer in self.call(hook, offered, **arguments):
            try:
                name = guarded(partial(getattr, offer.value, "name", None), seconds=self._patience)
            except FaultError as fault:
                self.blame(offer.plugin, f"{hook} gave {type(offer.value).__name__}, whose name {fault}")
                continue
            if type(name) is not str or not name:
                self.blame(offer.plugin, f"{hook} gave {type(offer.value).__name__}, which has no name")
                continue
            if not is_dns_label(name):
                self.blame(offer.plugin, f"{hook} gave the name {name[:80]!r}, which is no RFC 1123 label")
                continue
            if name in table:
                both = f"{table[name].distribution} and {offer.distribution}"
                raise PluginConflictError(
                    f"{hook}: {name!r} is offered by {both}",
                    hint="disable one in node.disable_plugins or uninstall it",
                )
            table[name] = offer
        self._tables[hook, offered] = arguments, table
        return dict(table)

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


def _rehearse(config: NodeConfig | None, patience: float, entry: EntryPoint, doing: Callable[[str], None]) -> None:
    """In a child process: what comes to its end here, well or badly, will do so in this one too."""
    doing("import")
    with undivided():
        entry.load()
    if config is None:
        return
    # Whoever waits for the child is to find out first that something does not end.
    host = PluginHost(installed=[entry], tried=True, patience_seconds=2 * patience)
    for hook in CONFIGURED:
        if entry.name in host.owners(hook):
            doing(hook)
            for _ in host.ask(entry.name, hook, config=config):
                pass


def _answers(function: Any, passed: Sequence[Any]) -> list[Any]:
    """All that a hook answers; it may be a generator, and one that never ends."""
    values = list(islice(function(*passed), MOST_ANSWERS + 1))
    if len(values) > MOST_ANSWERS:
        raise PluginError(f"more than {MOST_ANSWERS} answers")
    return values
