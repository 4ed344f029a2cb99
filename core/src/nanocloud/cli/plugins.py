"""``plugin list``, ``plugin new``, ``version``, and the command groups that plugins bring."""

from __future__ import annotations

import shlex
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from nanocloud.extension import CommandGroup
    from nanocloud.plugins import PluginHost

app = typer.Typer(help="Plugins of this installation.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _plugin() -> None:
    """Plugins of this installation."""


@cache
def _host() -> PluginHost:
    from nanocloud import builtin  # not by way of the node: that would import the API server
    from nanocloud.config import load
    from nanocloud.plugins import PluginHost

    return PluginHost(disabled=load().disable_plugins, builtin=builtin)


@cache
def command_groups() -> dict[str, CommandGroup]:
    """Command groups of the installed plugins by name; core itself brings none."""
    from nanocloud.config import load
    from nanocloud.plugins import commands

    return commands.command_groups(load())


@app.command("list")
def list_plugins(
    output: Annotated[str, typer.Option("--output", "-o", help="table or json.")] = "table",
) -> None:
    """Every plugin: distribution, version, state, contracts, hooks."""
    from nanocloud.config import load
    from nanocloud.output import dump, table
    from nanocloud.plugins import ROLES, PluginConflictError

    host, config = _host(), load()
    for role in ROLES.values():  # so that plugins that raise in a hook are told as broken
        try:
            host.named(role.hook, config=config)
        except PluginConflictError as exc:
            typer.echo(f"note: {exc}; {exc.hint}", err=True)
    rows: list[dict[str, Any]] = [
        {
            "name": info.name,
            "distribution": info.distribution,
            "version": info.version,
            "contracts": dict(info.contracts),
            "state": info.state.value,
            "hooks": list(info.hooks),
            "reason": info.reason,
        }
        for info in host.plugins
    ]
    if output == "json":
        typer.echo(dump(rows, "json"))
        return
    headers = ("NAME", "DISTRIBUTION", "VERSION", "STATE", "CONTRACTS", "HOOKS")
    contracts = [", ".join(f"{name} {version}" for name, version in row["contracts"].items()) or "-" for row in rows]
    hooks = [", ".join(hook.removeprefix("nanocloud_") for hook in row["hooks"]) or row["reason"] for row in rows]
    cells = [
        (row["name"], row["distribution"], row["version"], row["state"], stated, shown)
        for row, stated, shown in zip(rows, contracts, hooks, strict=True)
    ]
    typer.echo(table(headers, cells))


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
    """Write the package of a new plugin: it installs, is found, and its tests say what to write next."""
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
