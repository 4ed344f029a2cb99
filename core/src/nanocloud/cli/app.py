"""The commands as a typer application: everything that is not plain enough to go around it, and completion."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import typer
import typer.core
import typer.main
from typer._click.exceptions import ClickException  # typer carries its own click and exports no name for it

from nanocloud.cli.commands import COMMANDS
from nanocloud.cli.groups import known_groups
from nanocloud.cli.summary import summary


class LazyGroup(typer.core.TyperGroup):
    """Imports a command's module when the command is asked for, and plugins only for a name that core lacks."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*COMMANDS, *sorted(known_groups())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return _plugin_command(cmd_name)
        target, help_text = COMMANDS[cmd_name]
        module_name, _, attribute = target.partition(":")
        loaded = getattr(import_module(f"nanocloud.cli.{module_name}"), attribute)
        return _as_command(cmd_name, loaded, help_text)

    def get_help(self, ctx: Any) -> str:
        return summary()


def _as_command(name: str, loaded: Any, help_text: str) -> Any:
    app = loaded
    if not isinstance(loaded, typer.Typer):
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        app.command(name=name, help=loaded.__doc__ or help_text)(loaded)
    command = typer.main.get_command(app)
    command.name = name
    return command


def _plugin_command(name: str) -> Any:
    from nanocloud.cli.plugins import command_groups

    group = command_groups().get(name)
    return None if group is None else _as_command(name, group.load(), group.help)


app = typer.Typer(
    cls=LazyGroup,
    name="nanocloud",
    help="Turn this machine into a small cloud.",
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root(debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error.")) -> None:
    """Turn this machine into a small cloud."""


def run_words(words: list[str], *, usage: int) -> int:
    """Run a command line; ``usage`` is the exit status for one that cannot be read."""
    try:
        result = app(args=words, standalone_mode=False, prog_name="nanocloud")
    except typer.Exit as exc:
        return exc.exit_code
    except ClickException as exc:
        exc.show()
        return usage
    except typer.Abort:
        print("aborted", file=sys.stderr)
        return 1
    return result if isinstance(result, int) else 0
