"""``setup``, ``server`` and ``reset``: what root does on the node itself."""

from __future__ import annotations

from typing import Annotated

import typer


def setup(
    san: Annotated[
        list[str] | None, typer.Option("--san", help="Another name or address of the API server's certificate.")
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Issue certificates anew and tighten modes.")] = False,
    token: Annotated[bool, typer.Option("--token/--no-token", help="Print a single-use token.")] = True,
) -> None:
    """Prepare this machine: folders, keys, certificates, network; prints a single-use token. Safe to repeat."""
    import trio

    from nanocloud.concurrency import unwrapped
    from nanocloud.config import load
    from nanocloud.identity.assets import require_root
    from nanocloud.setup import set_up

    require_root()
    config = load()
    with unwrapped():
        report = trio.run(lambda: set_up(config, server_names=san or (), repair=repair, token=token))
    for made in report.made:
        typer.echo(f"prepared: {made}")
    for missing in report.missing:
        typer.echo(f"note: {missing}", err=True)
    if report.token:
        typer.echo("\nSingle-use token (24 h), for: nanocloud config --token TOKEN | sh\n")
        typer.echo(report.token)
    elif token:
        typer.echo("a server is running; for a token ask it: nanocloud token")


def server(
    listen: Annotated[str | None, typer.Option(help="host:port of the API, instead of node.listen.")] = None,
    log_format: Annotated[str, typer.Option(help="text or json.")] = "text",
) -> None:
    """Run the node: API server, controllers, kubelet. SIGTERM ends it; containers go on and are adopted again."""
    from nanocloud.cli.serving import serve

    serve(listen=listen, log_format=log_format)


def reset(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove everything that Nanocloud made on this machine: services, their data, images, keys, network."""
    import trio

    from nanocloud.cli.groups import forget
    from nanocloud.concurrency import unwrapped
    from nanocloud.config import load
    from nanocloud.identity.assets import require_root
    from nanocloud.setup import take_off

    require_root()
    config = load()
    if not yes:
        typer.confirm(f"Remove all services and their data below {config.state_dir}?", abort=True)
    with unwrapped():
        trio.run(take_off, config, typer.echo)
    forget()
