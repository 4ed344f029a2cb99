"""``status``, as typer sees it; plain command lines go around this module (see ``words``)."""

from __future__ import annotations

from typing import Annotated

import typer

from nanocloud.cli import overview
from nanocloud.cli.options import Curl


def status(
    service: Annotated[str | None, typer.Argument(help="One service in detail.", show_default=False)] = None,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Only this namespace.")] = None,
    pods: Annotated[bool, typer.Option("--pods", help="Show pods instead of services.")] = False,
    output: Annotated[str, typer.Option("--output", "-o", help="table, wide, json or yaml.")] = "table",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing changes.")] = False,
    curl: Curl = False,
) -> None:
    """Show services, or one service in detail: options, bindings, conditions, events."""
    overview.show(service, namespace=namespace, pods=pods, output=output, watch=watch, curl=curl)
