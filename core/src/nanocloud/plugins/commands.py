"""The command groups that plugins bring, for the command line.

Help and completion need names and a line of help. A child process finds them, so the plugins are imported once and a
plugin that takes the process down takes the child's. Only the plugin whose command runs is imported in this process.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from nanocloud.errors import NanocloudError, PluginError
from nanocloud.extension import CommandGroup
from nanocloud.plugins.guard import FaultError, guarded, raised
from nanocloud.plugins.host import PATIENCE_SECONDS, PluginConflictError, PluginHost
from nanocloud.plugins.trial import Child

if TYPE_CHECKING:
    from collections.abc import Callable

    import typer

    from nanocloud.config import NodeConfig
    from nanocloud.plugins.host import Offer

HOOK = "nanocloud_commands"


def command_groups(config: NodeConfig) -> dict[str, CommandGroup]:
    """By name; loading one imports its plugin.

    Raises:
        PluginConflictError: two plugins bring one name.
    """
    # The child gives one answer for all plugins, and interrupts by itself what can be interrupted.
    with Child(partial(_survey, config), seconds=PATIENCE_SECONDS) as child:
        answer, _ = child.answer(PATIENCE_SECONDS)
    if answer is None:  # then it is worth the time to find out which plugin it was
        found = _groups(PluginHost(allowed=config.allow_plugins, disabled=config.disable_plugins))
    elif "conflict" in answer:
        message, hint = answer["conflict"]
        raise PluginConflictError(message, hint=hint)
    else:
        found = answer["groups"]
    return {
        name: CommandGroup(name=name, help=text, load=partial(_load, config, plugin, name))
        for name, text, plugin in found
    }


def _survey(config: NodeConfig, report: Callable[[Any], None]) -> None:
    host = PluginHost(allowed=config.allow_plugins, disabled=config.disable_plugins, tried=True)
    try:
        report({"groups": _groups(host)})
    except PluginConflictError as exc:
        report({"conflict": (str(exc), exc.hint)})


def _groups(host: PluginHost) -> list[tuple[str, str, str]]:
    """Name, help and plugin of each."""
    return [(name, _help(offer), offer.plugin) for name, offer in host.named(HOOK, CommandGroup).items()]


def _help(offer: Offer) -> str:
    try:
        return guarded(lambda: str(offer.value.help), seconds=PATIENCE_SECONDS)
    except FaultError:
        return ""


def _load(config: NodeConfig, plugin: str, name: str) -> typer.Typer:
    """Raises PluginError: the plugin has no such commands any more, or they cannot be loaded."""
    import typer

    host = PluginHost(allowed=[plugin], disabled=config.disable_plugins, tried=True)
    offer = host.named(HOOK, CommandGroup).get(name)
    if offer is None:
        raise _error(plugin, name, "are not offered a second time")
    try:
        app = offer.value.load()
    except NanocloudError:
        raise
    except (Exception, SystemExit) as exc:
        raise _error(plugin, name, f"cannot be loaded: {raised(exc)}") from exc
    if not isinstance(app, typer.Typer):
        raise _error(plugin, name, f"are no typer.Typer but {type(app).__name__}")
    return app


def _error(plugin: str, name: str, fault: str) -> PluginError:
    return PluginError(
        f"the commands {name!r} of the plugin {plugin!r} {fault}", hint=f"see: nanocloud plugin show {plugin}"
    )
