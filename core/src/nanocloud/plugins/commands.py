"""The command groups that plugins bring, for the command line.

Help and completion need names and a line of help. A child process finds them, so the plugins are imported once and a
plugin that takes the process down takes the child's. Only the plugin whose command runs is imported in this process.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from nanocloud.extension import CommandGroup
from nanocloud.plugins.host import PATIENCE_SECONDS, PluginConflictError, PluginHost
from nanocloud.plugins.trial import Child

if TYPE_CHECKING:
    from collections.abc import Callable

    import typer

    from nanocloud.config import NodeConfig

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
        host = PluginHost(allowed=config.allow_plugins, disabled=config.disable_plugins)
        return {name: offer.value for name, offer in host.named(HOOK, CommandGroup).items()}
    if "conflict" in answer:
        message, hint = answer["conflict"]
        raise PluginConflictError(message, hint=hint)
    return {
        name: CommandGroup(name=name, help=text, load=partial(_load, config, plugin, name))
        for name, text, plugin in answer["groups"]
    }


def _survey(config: NodeConfig, report: Callable[[Any], None]) -> None:
    host = PluginHost(allowed=config.allow_plugins, disabled=config.disable_plugins, tried=True)
    try:
        offers = host.named(HOOK, CommandGroup)
    except PluginConflictError as exc:
        report({"conflict": (str(exc), exc.hint)})
    else:
        report({"groups": [(name, str(offer.value.help), offer.plugin) for name, offer in offers.items()]})


def _load(config: NodeConfig, plugin: str, name: str) -> typer.Typer:
    host = PluginHost(allowed=[plugin], disabled=config.disable_plugins, tried=True)
    group: CommandGroup = host.named(HOOK, CommandGroup)[name].value
    return group.load()
