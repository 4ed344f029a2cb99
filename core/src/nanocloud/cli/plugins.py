"""``plugin list``, ``plugin show`` and ``plugin new``, ``version``, and the command groups that plugins bring."""

from __future__ import annotations

import shlex
from functools import cache
from typing import TYPE_CHECKING, Annotated

import typer

from nanocloud.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nanocloud.extension import CommandGroup
    from nanocloud.plugins import PluginHost
    from nanocloud.plugins.offers import OfferedProvider

_STYLES = ("table", "json", "yaml")
Output = Annotated[str, typer.Option("--output", "-o", help="table, json or yaml.")]

app = typer.Typer(
    help="Plugins of this installation.", no_args_is_help=True, rich_markup_mode=None, add_completion=False
)


@app.callback()
def _plugin() -> None:
    """Plugins of this installation."""


@cache
def command_groups() -> dict[str, CommandGroup]:
    """Command groups of the installed plugins by name; core itself brings none."""
    from nanocloud.config import load
    from nanocloud.plugins import commands

    return commands.command_groups(load())


@app.command("list")
def list_plugins(output: Output = "table") -> None:
    """Every plugin: distribution, version, state, contracts, hooks."""
    _check(output)
    from nanocloud.cli.plugin_report import row, rows_as_table
    from nanocloud.output import dump

    host, _ = _survey()
    typer.echo(rows_as_table(host.plugins) if output == "table" else dump([row(info) for info in host.plugins], output))


@app.command("show")
def show_plugin(
    name: Annotated[str, typer.Argument(help="Name of the plugin, as in plugin list.", show_default=False)],
    output: Output = "table",
) -> None:
    """One plugin and its providers. Says where it comes from, what of it is used, and what to do if it is not."""
    _check(output)
    from nanocloud.cli.plugin_report import details, details_as_text
    from nanocloud.output import dump, printable

    host, by_plugin = _survey()
    found = [info for info in host.plugins if info.name == name]
    if not found:
        names = ", ".join(info.name for info in host.plugins)
        raise NotFoundError(f"no plugin {name!r} is installed", hint=f"installed: {names}")
    info, *others = found
    for other in others:
        typer.echo(f"note: {printable(other.distribution)} offers this name too: {other.reason}", err=True)
    providers = by_plugin.get(name, ())
    typer.echo(details_as_text(info, providers) if output == "table" else dump(details(info, providers), output))


def _check(output: str) -> None:
    if output not in _STYLES:
        raise UsageError(f"--output is {output!r}; allowed: {', '.join(_STYLES)}")


def _survey() -> tuple[PluginHost, Mapping[str, Sequence[OfferedProvider]]]:
    """The plugins of this installation once each was asked for its providers, and those; notes what is odd."""
    from nanocloud import builtin  # not by way of the node: that would import the API server
    from nanocloud.config import load
    from nanocloud.output import printable
    from nanocloud.plugins import PluginHost
    from nanocloud.plugins.offers import offers

    config = load()
    host = PluginHost(allowed=config.allow_plugins, disabled=config.disable_plugins, builtin=builtin, config=config)
    found = offers(host, config)
    for note in (*host.notes, *found.problems):
        typer.echo(f"note: {printable(note)}", err=True)
    return host, found.by_plugin


@app.command("new")
def new_plugin(
    name: Annotated[str, typer.Argument(help="Name of the plugin: words of a-z and 0-9 joined by '-'.")],
    provides: Annotated[
        list[str],
        typer.Option(
            "--provides",
            help="Contract to fill: storage, runtime, network, volume, image, macro or binding. May be repeated.",
        ),
    ],
    directory: Annotated[
        str, typer.Option("--directory", help="Where to write it; must not exist. Default: ./nanocloud-NAME.")
    ] = "",
) -> None:
    """Write the package of a new plugin. It installs, is found, and its tests say what to write next."""
    from pathlib import Path

    from nanocloud.scaffold import new_plugin

    made = new_plugin(name, provides, Path(directory) if directory else None)
    typer.echo(f"wrote {made.distribution} to {made.directory}")
    if made.to_write:
        typer.echo(f"methods to write: {', '.join(made.to_write)}")
    typer.echo(f"next:\n  cd {shlex.quote(str(made.directory))}\n  pip install -e '.[test]'\n  pytest -x")


def version() -> None:
    """Print the version of this command, and of the server where one answers."""
    from nanocloud import __version__
    from nanocloud.cli.options import api
    from nanocloud.errors import NanocloudError

    typer.echo(f"nanocloud {__version__}")
    try:
        typer.echo(f"server    {api().request('GET', '/version')['gitVersion']}")
    except NanocloudError as exc:
        typer.echo(f"server    {exc}", err=True)
