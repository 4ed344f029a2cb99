"""``nanocloud dockyard``: the catalogue, and building its images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import attrs
import typer

from nanocloud.config import load
from nanocloud.errors import UsageError
from nanocloud.output import dump, printable, table
from nanocloud.planning import describe_image, image_contract, options_schema
from nanocloud_dockyard import recipes, services
from nanocloud_dockyard.builder import Builder, BuildError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

app = typer.Typer(
    help="The catalogue of services, and their images.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)


@app.callback()
def _dockyard() -> None:
    """The catalogue of services, and their images."""


@app.command()
def build(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="SERVICE|FOLDER...", help="Services to build, or folders with recipes: ./name.", show_default=False
        ),
    ],
    force: Annotated[bool, typer.Option("--force", help="Build although nothing changed.")] = False,
    rebuild_base: Annotated[bool, typer.Option("--rebuild-base", help="Make the base anew first.")] = False,
    build_args: Annotated[
        list[str] | None,
        typer.Option("--build-arg", metavar="NAME=VALUE", help="A URL or file to take a recipe's file from."),
    ] = None,
) -> None:
    """Build images from their recipes; what is up to date is left alone."""
    places = {name: _place(name) for name in names}
    known = {name: _arguments(*place) for name, place in places.items()}  # before the first build begins
    arguments = _given(build_args or (), known)
    state_dir = load().state_dir
    for index, (name, (catalog, service)) in enumerate(places.items()):
        builder = Builder(state_dir, catalog=catalog, progress=_tell)
        try:
            result = builder.build(
                service,
                force=force,
                rebuild_base=rebuild_base and index == 0,
                arguments={argument: arguments[argument] for argument in known[name] if argument in arguments},
            )
        except BuildError as exc:
            for line in exc.tail.splitlines():
                typer.echo(f"  | {printable(line)}", err=True)
            raise
        if result.built:
            typer.echo(f"{service}: built in {result.seconds:.0f} s")
        else:
            typer.echo(f"{service}: up to date")


def _place(name: str) -> tuple[Path, str]:
    """Where a recipe lies, and its service: what holds a slash is a folder, whose name is the service's."""
    if "/" not in name:
        return recipes.CATALOG, name
    folder = Path(name).resolve()
    if not (folder / "Containerfile").is_file():
        raise UsageError(f"{name} is no folder with a recipe: it has no Containerfile")
    if folder.name not in recipes.services(folder.parent):
        raise UsageError(f"{name}: {folder.name!r} is no name for a service: a-z, 0-9 and '-', at most 63 characters")
    return folder.parent, folder.name


def _arguments(catalog: Path, service: str) -> list[str]:
    return [artifact.argument for artifact in recipes.load(service, catalog).artifacts if artifact.argument]


def _given(words: Iterable[str], known: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The build arguments as the user typed them; ``known`` are those of each service that is to be built."""
    arguments: dict[str, str] = {}
    listed = ", ".join(f"{name} of {service}" for service, names in known.items() for name in names) or "none"
    for word in words:
        name, _, value = word.partition("=")
        if not name or not value:
            raise UsageError(f"--build-arg is {word!r}; it must be NAME=VALUE")
        if not any(name in names for names in known.values()):
            raise UsageError(
                f"--build-arg names {name!r}, which {', '.join(known)} does not know", hint=f"known: {listed}"
            )
        if name in arguments:
            raise UsageError(f"--build-arg {name} is given twice")
        arguments[name] = value
    return arguments


def _tell(subject: str, message: str) -> None:
    typer.echo(f"{printable(subject)}: {printable(message)}")


@app.command()
def push(
    image: Annotated[
        str,
        typer.Argument(
            metavar="SERVICE|REFERENCE",
            help="A service that was built here, oci:/path[:tag], oci-archive:/path[:tag], or an image in a registry.",
            show_default=False,
        ),
    ],
    target: Annotated[
        str, typer.Argument(metavar="REGISTRY/REPO[:TAG]", help="Where it goes; tag: latest.", show_default=False)
    ],
) -> None:
    """Push an image to a registry. What the registry has already is left out."""
    from nanocloud_dockyard.pushing import push_image

    pushed = push_image(load(), image, target)
    typer.echo(pushed)


@app.command("list")
def list_services(output: Annotated[str, typer.Option("--output", "-o", help="table or json.")] = "table") -> None:
    """The services that can be installed. Says whether their images are here."""
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
    output: Annotated[str, typer.Option("--output", "-o", help="table, markdown or json.")] = "table",
) -> None:
    """A service's options and exports. Also its defaults and choices, and what it needs."""
    if output not in ("table", "markdown", "json"):
        raise UsageError(f"--output is {output!r}; allowed: table, markdown, json")
    if service not in recipes.services():
        raise services.missing(service, None)
    recipe = recipes.load(service)
    described = describe_image(recipe.labels)
    if output == "json":
        artifacts = [attrs.asdict(artifact) for artifact in recipe.artifacts]
        facts = {"service": recipe.service, "description": recipe.description, "options": recipe.options}
        typer.echo(dump(facts | described | {"artifacts": artifacts}, "json"))
        return
    if output == "markdown":
        from nanocloud_dockyard.pages import page

        typer.echo(page(service), nl=False)
        return
    typer.echo(f"{recipe.service}: {recipe.description}\n")
    typer.echo(table(("OPTION", "DEFAULT", "CHOICES", "NOTES", "NEEDS"), _rows(recipe)))
    services_used = [f"{name}: {' or '.join(values)}" for name, values in described["services"].items()]
    bindings = [
        " ".join([b["command"], *b["arguments"], *([f"(with {b['when']})"] if "when" in b else [])])
        for b in described["bindings"]
    ]
    exports = described["exports"]
    typer.echo()
    for title, names in (
        ("uses services", services_used),
        ("runs in them", bindings),
        ("exports options", [", ".join(exports["options"])]),
        ("exports bindings", [", ".join(exports["bindings"])]),
        ("capabilities", [", ".join(described["capabilities"])]),
    ):
        for index, name in enumerate(names or [""]):
            typer.echo(f"{title + ':' if index == 0 else '':18}{printable(name) or 'none'}")
    for artifact in recipe.artifacts:
        instead = f" (instead: --build-arg {artifact.argument}=/path/or/url)" if artifact.argument else ""
        typer.echo(f"{'built with:':18}{artifact.url}{instead}")


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
    """Hold images against the rules. Installs each with every choice; prints findings and the level that is reached."""
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


def _rows(recipe: recipes.Recipe) -> list[tuple[str, str, str, str, str]]:
    """One an option, in the label's order."""
    contract = image_contract(recipe.labels)
    must = options_schema(contract).get("required", [])
    rows = []
    for option in contract.options.values():
        settings = [setting for setting in (option.free, *option.choices.values()) if setting is not None]
        default = option.free.default.text if option.free and option.free.default else ""
        if option.choices and not option.optional:
            default = next(iter(option.choices))
        choices = ", ".join(f"{value} (service)" if s.selects_service else value for value, s in option.choices.items())
        needs = ", ".join(dict.fromkeys(str(requirement) for s in settings for requirement in s.requires))
        notes = [
            *(["required"] if option.name in must else []),
            *(["optional"] if option.optional else []),
            *(["secret"] if option.name in contract.secrets else []),
        ]
        rows.append((option.name, default, choices, ", ".join(notes), needs))
    return rows
