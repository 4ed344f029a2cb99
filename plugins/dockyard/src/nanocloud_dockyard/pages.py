"""The manual page of a service, in Markdown: made from what its recipe says, so that it says what the image does.

What labels cannot say comes from the recipe's notes (see notes.py).

``python -m nanocloud_dockyard.pages FOLDER`` writes the pages of the whole catalogue and their index; ``make pages``
does it for ``docs/catalogue``.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from nanocloud.errors import InvalidError
from nanocloud.planning.contract import REFERENCE
from nanocloud.planning.label import image_contract
from nanocloud.planning.reserved import Reserved, parse_port, reserved
from nanocloud_dockyard import recipes
from nanocloud_dockyard.notes import read_notes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nanocloud.planning.contract import ImageContract, Option, Setting
    from nanocloud_dockyard.notes import Notes
    from nanocloud_dockyard.recipes import Recipe

INDEX = "README.md"
_WIDTH = 120
_HIDDEN = {Reserved.ENV, Reserved.SECRET_ENV, Reserved.SECRET, Reserved.COMMAND, Reserved.ARGUMENTS}
_PLACED = {Reserved.PORT, Reserved.VOLUME, Reserved.VOLUME_SIZE, Reserved.VOLUME_ENCRYPTED}


def page(service: str, catalog: Path = recipes.CATALOG) -> str:
    """The page of one service.

    Raises:
        NotFoundError, InvalidError, LabelError: no such recipe, or a broken one.
    """
    everything = {name: recipes.load(name, catalog) for name in sorted({*recipes.services(catalog), service})}
    recipe = everything[service]
    contract, notes = image_contract(recipe.labels), read_notes(recipe)
    sections = (
        f"# {service}",
        _sentence(recipe.description),
        notes.intro,
        _install(recipe, contract),
        _options(contract, notes),
        _services(contract),
        _ports(service, contract),
        _volumes(service, contract),
        _tls(contract),
        _dependants(recipe, [name for name, other in everything.items() if service in _selected(other)]),
        notes.rest,
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def pages(catalog: Path = recipes.CATALOG) -> dict[str, str]:
    """File name -> text, of every service and the index."""
    services = recipes.services(catalog)
    made = {f"{service}.md": page(service, catalog) for service in services}
    rows = []
    for service in services:
        recipe = recipes.load(service, catalog)
        links = ", ".join(f"[{name}]({name}.md)" for name in _selected(recipe))
        rows.append((f"[{service}]({service}.md)", _cell(recipe.description), links))
    head = (
        "# The catalogue\n\n"
        "Services that `nanocloud install` knows. Each runs as a user of its own, without any capability, on Debian.\n"
        "`nanocloud dockyard build SERVICE` makes a service's image from its recipe.\n\n"
    )
    return made | {INDEX: head + _table(("service", "what it is", "can use"), rows) + "\n"}


def _selected(recipe: Recipe) -> Sequence[str]:
    """Services that the recipe can select, each once, in the order of the label."""
    options = image_contract(recipe.labels).options.values()
    return list(dict.fromkeys(v for option in options for v, s in option.choices.items() if s.selects_service))


def _install(recipe: Recipe, contract: ImageContract) -> str:
    first = [
        value
        for option in contract.options.values()
        for value, setting in list(option.choices.items())[:1]
        if setting.selects_service and not option.optional
    ]
    lines = [
        f"nanocloud dockyard build {' '.join(dict.fromkeys([*first, recipe.service]))}",
        f"nanocloud install {recipe.service}",
    ]
    for option in contract.options.values():
        others = list(option.choices.items())[0 if option.optional else 1 :]
        lines += [
            f"nanocloud install {recipe.service} --option {option.name}={value}"
            for value, setting in others
            if _enough_alone(contract, setting)
        ]
    return "## Install\n\n```sh\n" + "\n".join(lines) + "\n```"


def _enough_alone(contract: ImageContract, setting: Setting) -> bool:
    """Whether the choice can be taken without giving other options: nothing optional that it requires is missing."""
    for requirement in setting.requires:
        option, source = contract.options.get(requirement.option), contract.imports.get(requirement.option)
        imported = setting.selects_service and source is not None and source.option == setting.option
        if option and option.optional and not imported and not (option.free and option.free.default):
            return False
    return True


def _options(contract: ImageContract, notes: Notes) -> str:
    rows = []
    for option in contract.options.values():
        found = reserved(option.name)
        if found and found[0] in _HIDDEN | _PLACED and option.name not in notes.meanings:
            continue
        choices = ", ".join(f"`{value}`" for value in option.choices)
        settings = [setting for setting in (option.free, *option.choices.values()) if setting]
        needed = [requirement for setting in settings for requirement in setting.requires]
        own = [requirement for requirement in needed if requirement.option in contract.options]
        requires = ", ".join(dict.fromkeys(f"`{requirement}`" for requirement in own))
        secret = "Secret. " if option.name in contract.secrets else ""
        meaning = secret + notes.meanings.get(option.name, "")
        rows.append((f"`{option.name}`", _default(option), choices, requires, _cell(meaning.strip())))
    if not rows:
        return ""
    table = _table(("option", "default", "choices", "requires", "meaning"), rows)
    return f"## Options\n\n{table}"


def _default(option: Option) -> str:
    """What the option is when nobody says anything, in words."""
    if option.optional and not (option.free and option.free.default):
        return "none"
    if option.choices:
        return f"`{next(iter(option.choices))}`"
    default = option.free.default if option.free else None
    if default is None:
        return "must be given"
    if default.macro == "rand":
        return f"{default.words[0]} random characters ({default.words[1]})"
    if default.macro == "bundle":
        return "the bundle's name"
    return f"`{_cell(default.text)}`" if default.text else "empty"


def _services(contract: ImageContract) -> str:
    rows = []
    for option in contract.options.values():
        imports = [
            f"`{i.key}`" for name, i in contract.imports.items() if i.option == option.name and _taken(name, contract)
        ]
        for value, setting in option.choices.items():
            if not setting.selects_service:
                continue
            commands = [
                _cell(f"`{' '.join((binding.command, *binding.words))}`")
                for other in contract.settings
                for binding in other.bindings
                if binding.runs_in == option.name and (other.option != option.name or other.choice == value)
            ]
            cells = (f"`{option.name}={value}`", f"[{value}]({value}.md)", ", ".join(imports), ", ".join(commands))
            rows.append(cells)
    if not rows:
        return ""
    head = _wrapped("A selected service that is not there is installed first, and its binding commands run in it.")
    return f"## Services it can use\n\n{head}\n\n" + _table(("option", "service", "takes", "binding"), rows)


def _taken(name: str, contract: ImageContract) -> bool:
    """Whether a name that a service may supply comes from there: a default of the label's own stands in otherwise."""
    option = contract.options.get(name)
    return option is None or (option.free is not None and option.free.default is None)


def _ports(service: str, contract: ImageContract) -> str:
    rows, inside = [], None
    for name, text in _placed(contract, Reserved.PORT).items():
        if "$" in text or text.startswith("!"):
            rows.append((f"`{name}`", f"`{_cell(text)}`", "see the options"))
            continue
        port = parse_port(text)
        where = "inside the node's network"
        if port.host_port is not None:
            where += f", and published on {port.host_ip or 'every address'} of the machine, port {port.host_port}"
        elif inside is None:
            inside = f"{name}={port.container_port}->{port.container_port}/{port.protocol}"
        rows.append((f"`{name}`", f"`{port.container_port}/{port.protocol}`", where))
    if not rows:
        return ""
    text = "## Ports\n\n" + _table(("option", "port", "reachable"), rows)
    if inside:
        text += "\n\nTo publish one on the machine:\n\n"
        text += f"```sh\nnanocloud install {service} --option '{inside}'\n```"
    return text


def _volumes(service: str, contract: ImageContract) -> str:
    sizes = _placed(contract, Reserved.VOLUME_SIZE)
    rows = []
    for name, path in _placed(contract, Reserved.VOLUME).items():
        size = name.replace("volume_", "volume_size_")
        rows.append((f"`{name}`", f"`{_cell(path)}`", f"`{sizes[size]}`", f"`{size}`"))
    if not rows:
        return ""
    example = f"nanocloud install {service} --option {rows[0][3].strip('`')}=10Gi"
    return (
        "## Volumes\n\n"
        + _table(("option", "mounted at", "size", "option of the size"), rows)
        + f"\n\nThe size is fixed once the volume exists:\n\n```sh\n{example}\n```"
    )


def _placed(contract: ImageContract, kind: Reserved) -> dict[str, str]:
    """Options of one reserved kind with their default, other options' defaults put in."""
    found = {}
    for name, option in contract.options.items():
        named = reserved(name)
        if named and named[0] is kind and option.free and option.free.default:
            default = option.free.default
            found[name] = (
                default.text if default.macro else REFERENCE.sub(lambda m: _literal(contract, m), default.text)
            )
    return found


def _literal(contract: ImageContract, match: re.Match[str]) -> str:
    option = contract.options.get(match[1])
    default = option.free.default if option and option.free else None
    return default.text if default and not default.macro and not default.references else match[0]


def _tls(contract: ImageContract) -> str:
    if not any(setting.default and setting.default.macro == "tls" for setting in contract.settings):
        return ""
    return "## TLS\n\n" + _wrapped(
        "The node's authority issues the certificate; which names it is good for and where a dependant finds the "
        "authority is told in [images](../images.md#tls)."
    )


def _dependants(recipe: Recipe, used_by: Iterable[str]) -> str:
    values = ", ".join(f"`{name}`" for name in recipe.exports.options)
    lines = []
    if users := ", ".join(f"[{name}]({name}.md)" for name in used_by):
        lines.append(f"Used by {users}.")
    if values:
        lines.append(f"Another service that selects this one can take these values from it: {values}.")
    if recipe.exports.bindings:
        lines.append("These commands can be bound to it:")
    if not lines:
        return ""
    text = "## For services that use it\n\n" + _wrapped(" ".join(lines))
    entries = [_binding(recipe, command) for command in recipe.exports.bindings]
    return text + ("\n\n" + "\n".join(entries) if entries else "")


def _binding(recipe: Recipe, command: str) -> str:
    """The usage line and the paragraphs below it, from the comment at the top of the command."""
    script = recipe.folder / "scripts" / "bindings" / command
    comment = re.match(r"#!.*\n((?:#.*\n)+)", script.read_text()) if script.is_file() else None
    usage, *said = (line.removeprefix("#").strip() for line in comment[1].splitlines()) if comment else ("",)
    if usage.split()[:1] != [command] or not any(said):
        raise InvalidError(
            f"{script} must begin with a comment that says how it is used",
            hint=f"its first line is '# {command} ARGUMENT...', then an empty one, then what it does",
        )
    text = " ".join(line for line in said if line)
    if owned := [usage.split()[n] for n in recipe.exports.owned.get(command, ()) if n < len(usage.split())]:
        text += f" {' and '.join(owned)} belong{'s' if len(owned) == 1 else ''} to one service alone."
    return textwrap.fill(
        f"`{usage}`: {text}",
        _WIDTH,
        initial_indent="- ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table without the columns that are empty in every row."""
    rows = list(rows)
    kept = [n for n in range(len(head)) if any(row[n] for row in rows)]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line[n] for n in kept) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|")


def _sentence(text: str) -> str:
    return _wrapped(text if text.endswith(".") else f"{text}.")


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False)


def main(folder: Path) -> None:
    """Bring a folder of pages up to date; a page whose recipe is gone goes, too."""
    made = pages()
    folder.mkdir(parents=True, exist_ok=True)
    for stale in {path.name for path in folder.glob("*.md")} - made.keys():
        (folder / stale).unlink()
    for name, text in made.items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
