"""``nanocloud``: finds the command, runs it, turns errors into one or two lines and an exit status.

Exit status: 0 done, 1 the operation failed, 2 usage or fatal; of a command that shows a plan 0 nothing to do,
2 changes, 1 any error. A traceback appears only with ``--debug``.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import typer
import typer.core
import typer.main
from typer._click.exceptions import ClickException  # typer carries its own click and exports no name for it

from nanocloud.cli.plans import asks_for_a_plan
from nanocloud.client.api import ApiError, CurlPrinted, UnreachableError
from nanocloud.errors import ConfigError, NanocloudError, PluginError, UnauthorizedError, UsageError

COMMANDS: dict[str, tuple[str, str]] = {
    # name: (module:function or module:app, help)
    "setup": ("node:setup", "Prepare this machine: folders, keys, certificates, network; prints a single-use token."),
    "server": ("node:server", "Run the node: API server, controllers, kubelet."),
    "reset": ("node:reset", "Remove everything that Nanocloud made on this machine, data too."),
    "install": ("services:install", "Install a service and what it needs."),
    "uninstall": ("services:uninstall", "Remove a service and its data."),
    "start": ("services:start", "Start a stopped service."),
    "stop": ("services:stop", "Stop a service; its data stays."),
    "restart": ("services:restart", "Restart a service."),
    "status": ("status:status", "Show services, or one service in detail."),
    "logs": ("logs:logs", "Print a service's log."),
    "bundle": ("bundles:app", "Services as files: apply them, or show what would change."),
    "exec": ("execute:execute", "Run a command in a service's container."),
    "events": ("logs:events", "Show what happened."),
    "config": ("access:config", "Print a shell script that installs a kubeconfig."),
    "token": ("access:token", "Make a single-use token for another user or machine."),
    "plugin": ("plugins:app", "Plugins of this installation."),
    "version": ("plugins:version", "Print the version."),
}
FATAL = (UsageError, ConfigError, PluginError, UnreachableError, UnauthorizedError)
_UNAUTHORIZED = 401


class LazyGroup(typer.core.TyperGroup):
    """Imports a command's module when the command is asked for, and plugins only for a name that core lacks."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*COMMANDS, *sorted(_known_groups())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return _plugin_command(cmd_name)
        target, help_text = COMMANDS[cmd_name]
        module_name, _, attribute = target.partition(":")
        loaded = getattr(import_module(f"nanocloud.cli.{module_name}"), attribute)
        return _as_command(cmd_name, loaded, help_text)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """``--help`` prints the table above; it imports no command."""
        rows = [(name, text) for name, (_, text) in COMMANDS.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
        if groups := _known_groups():
            with formatter.section("Commands of plugins"):
                formatter.write_dl([(name, group.help) for name, group in sorted(groups.items())])


def _as_command(name: str, loaded: Any, help_text: str) -> Any:
    app = loaded
    if not isinstance(loaded, typer.Typer):
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        app.command(name=name, help=loaded.__doc__ or help_text)(loaded)
    command = typer.main.get_command(app)
    command.name = name
    return command


def _plugin_groups() -> dict[str, Any]:
    from nanocloud.cli.plugins import command_groups

    return {name: group for name, group in command_groups().items() if name not in COMMANDS}


def _known_groups() -> dict[str, Any]:
    """For help and completion, which a broken configuration or plugin must not take away."""
    try:
        return _plugin_groups()
    except NanocloudError:
        return {}


def _plugin_command(name: str) -> Any:
    group = _plugin_groups().get(name)
    if group is None:
        return None
    return _as_command(name, group.load(), group.help)


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


def main(arguments: list[str] | None = None) -> int:
    """Run one command line; the exit status is returned."""
    words = sys.argv[1:] if arguments is None else arguments
    fatal = 1 if asks_for_a_plan(words) else 2  # where 2 means that there are changes
    debug = "--debug" in words[: words.index("--")] if "--" in words else "--debug" in words
    try:
        result = app(args=words, standalone_mode=False, prog_name="nanocloud")
    except CurlPrinted:
        return 0
    except typer.Exit as exc:
        return exc.exit_code
    except ClickException as exc:
        exc.show()
        return fatal
    except (typer.Abort, KeyboardInterrupt):
        print("aborted", file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except NanocloudError as exc:
        if debug:
            raise
        print_error(exc)
        return fatal if isinstance(exc, FATAL) or (isinstance(exc, ApiError) and exc.code == _UNAUTHORIZED) else 1
    except Exception as exc:
        if debug:
            raise
        print(f"error: internal error: {type(exc).__name__}: {exc}", file=sys.stderr)
        print("  run it again with --debug for the traceback", file=sys.stderr)
        return fatal
    return result if isinstance(result, int) else 0


def print_error(exc: NanocloudError) -> None:
    """One line what is wrong, one line what to do."""
    print(f"error: {exc}", file=sys.stderr)
    if exc.hint:
        print(f"  {exc.hint}", file=sys.stderr)


def run() -> None:
    """The console script."""
    sys.exit(main())
