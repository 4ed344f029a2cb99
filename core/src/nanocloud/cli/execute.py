"""``exec``, as typer sees it; plain command lines go around this module (see ``words``)."""

from __future__ import annotations

from typing import Annotated

import typer

from nanocloud.cli import remote
from nanocloud.cli.options import Curl, Namespace


def execute(
    pod: Annotated[str, typer.Argument(metavar="SERVICE", help="A service, or a pod.", show_default=False)],
    command: Annotated[list[str], typer.Argument(help="After --: program and arguments.", show_default=False)],
    namespace: Namespace = "default",
    interactive: Annotated[bool, typer.Option("--stdin", "-i", help="Pass standard input on.")] = False,
    terminal: Annotated[bool, typer.Option("--tty", "-t", help="Give the process a terminal.")] = False,
    container: Annotated[str | None, typer.Option("--container", "-c", help="In this container.")] = None,
    as_binding: Annotated[
        bool, typer.Option("--as-binding", help="As a binding command: its user, environment and rights.")
    ] = False,
    curl: Curl = False,
) -> int:
    """Run a command in a service's container; its exit status is ours."""
    return remote.execute(
        pod,
        command,
        namespace=namespace,
        interactive=interactive,
        terminal=terminal,
        container=container,
        as_binding=as_binding,
        curl=curl,
    )
