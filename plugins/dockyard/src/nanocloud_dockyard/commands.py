"""``nanocloud dockyard``: the catalogue, and building its images."""

from __future__ import annotations

from typing import Annotated

import typer

from nanocloud.config import load
from nanocloud.errors import UsageError
from nanocloud.output import dump, printable, table
from nanocloud_dockyard import recipes, services
from nanocloud_dockyard.builder import Builder, BuildError

app = typer.Typer(help="The catalogue of services, and their images.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _dockyard() -> None:
    """The catalogue of services, and their images."""


@app.command()
def build(
    names: Annotated[list[str], typer.Argument(metavar="SERVICE...", help="Services to build.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Build although nothing changed.")] = False,
    rebuild_base: Annotated[bool, typer.Option("--rebuild-base", help="Make the base anew first.")] = False,
) -> None:
    """Build images from their recipes; what is up to date is left alone."""
    for name in names:
        recipes.load(name)  # all names are known before the first build begins
    builder = Builder(load().state_dir, progress=_tell)
    for index, name in enumerate(names):
        try:
            result = builder.build(name, force=force, rebuild_base=rebuild_base and index == 0)
        except BuildError as exc:
            for line in exc.tail.splitlines():
                typer.echo(f"  | {printable(line)}", err=True)
            raise
        if result.built:
            typer.echo(f"{name}: built in {result.seconds:.0f} s")
        else:
            typer.echo(f"{name}: up to date")


def _tell(subject: str, message: str) -> None:
    typer.echo(f"{printable(subject)}: {printable(message)}")


@app.command("list")
def list_services(output: Annotated[str, typer.Option("--output", "-o", help="table or json.")] = "table") -> None:
    """The services that can be installed, and whether their images are here."""
    from nanocloud_dockyard.settings import DockyardConfig

    if output not in ("table", "json"):
        raise UsageError(f"--output is {output!r}; allowed: table, json")
    config = load()
    settings = config.section("dockyard", DockyardConfig)
    entries = services.entries(config.state_dir / "images" / "layout", settings.registry)
    if output == "json":
        rows = [
            {"service": e.service, "image": e.reference, "built": e.built, "description": e.description}
            for e in entries
        ]
        typer.echo(dump(rows, "json"))
        return
    shown = [(e.service, "yes" if e.built else "no", e.description) for e in entries]
    typer.echo(table(("SERVICE", "BUILT", "DESCRIPTION"), shown))


@app.command()
def show(
    service: Annotated[str, typer.Argument(help="A service of the catalogue.", show_default=False)],
    output: Annotated[str, typer.Option("--output", "-o", help="table or json.")] = "table",
) -> None:
    """A service's options, defaults and choices, what it needs and what it exports."""
    if output not in ("table", "json"):
        raise UsageError(f"--output is {output!r}; allowed: table, json")
    if service not in recipes.services():
        raise services.missing(service, None)
    recipe = recipes.load(service)
    if output == "json":
        facts = {
            "service": recipe.service,
            "description": recipe.description,
            "options": recipe.options,
            "exports": {"options": list(recipe.exports.options), "bindings": list(recipe.exports.bindings)},
            "capabilities": list(recipe.capabilities),
        }
        typer.echo(dump(facts, "json"))
        return
    typer.echo(f"{recipe.service}: {recipe.description}\n")
    typer.echo(table(("OPTION", "DEFAULT", "CHOICES", "NEEDS"), _rows(recipe)))
    typer.echo(f"\nexports options:  {', '.join(recipe.exports.options) or 'none'}")
    typer.echo(f"exports bindings: {', '.join(recipe.exports.bindings) or 'none'}")


@app.command()
def check(
    references: Annotated[
        list[str], typer.Argument(metavar="IMAGE|SERVICE...", help="Images, or services.", show_default=False)
    ],
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="KEY=VALUE for every installation; may be repeated.", show_default=False),
    ] = None,
    lint_only: Annotated[bool, typer.Option("--lint-only", help="Look at its files; install nothing.")] = False,
    level: Annotated[str, typer.Option("--level", help="What has to be reached: bronze, silver or gold.")] = "bronze",
    timeout: Annotated[int, typer.Option("--timeout", help="Seconds for each installation to become ready.")] = 300,
    output: Annotated[str, typer.Option("--output", "-o", help="table or json.")] = "table",
) -> int:
    """Look at images and install each with every choice; prints what was found and the level that is reached."""
    from nanocloud.client.api import Api
    from nanocloud.client.endpoint import find_endpoint
    from nanocloud_dockyard.check.checking import Checker
    from nanocloud_dockyard.check.findings import Level

    allowed = [each.word for each in Level if each is not Level.REFUSED]
    if level not in allowed:
        raise UsageError(f"--level is {level!r}; allowed: {', '.join(allowed)}")
    if output not in ("table", "json"):
        raise UsageError(f"--output is {output!r}; allowed: table, json")
    checker = Checker(
        config=load(),
        server=None if lint_only else Api(find_endpoint()),
        given=_options(option or []),
        seconds=float(timeout),
        tell=lambda said: typer.echo(printable(said), err=True),
    )
    reports = [checker.check(reference) for reference in references]
    if output == "json":
        typer.echo(dump([report.to_json() for report in reports], "json"))
    else:
        typer.echo("\n\n".join(report.text() for report in reports))
    return 0 if all(report.level >= Level[level.upper()] for report in reports) else 1


def _options(words: list[str]) -> dict[str, str]:
    found = dict[str, str]()
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals or key in found:
            raise UsageError(f"--option {word!r} is not KEY=VALUE, each key once")
        found[key] = value
    return found


def _rows(recipe: recipes.Recipe) -> list[tuple[str, str, str, str]]:
    from nanocloud.planning.label import image_contract

    rows = []
    for option in image_contract(recipe.labels).options.values():
        if not option.free and not option.choices:
            continue
        default = option.free.default.text if option.free and option.free.default else ""
        if option.choices and not option.optional:
            default = next(iter(option.choices))
        choices = ", ".join(f"{v} (service)" if s.selects_service else v for v, s in option.choices.items())
        needed = [s for s in [option.free, *option.choices.values()] if s is not None]
        needs = ", ".join(dict.fromkeys(str(r) for s in needed for r in s.requires))
        rows.append((f"{option.name}{' (optional)' if option.optional else ''}", default, choices, needs))
    return rows
