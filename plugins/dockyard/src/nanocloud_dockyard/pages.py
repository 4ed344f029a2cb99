"""The manual page of a service, in Markdown: made from what its recipe says, so that it says what the image does.

What labels cannot say comes from the recipe's notes (see notes.py).

``python -m nanocloud_dockyard.pages FOLDER`` writes the pages of the whole catalogue and their index; ``make pages``
does it for ``docs/catalogue``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nanocloud.errors import InvalidError
from nanocloud.planning.contract import REFERENCE
from nanocloud.planning.label import image_contract
from nanocloud.planning.reserved import Reserved, parse_port, reserved
from nanocloud_dockyard import recipes
from nanocloud_dockyard.markdown import bullet, cell, code, sentence, table, wrapped
from nanocloud_dockyard.notes import read_notes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nanocloud.planning.contract import ImageContract, Option, Setting
    from nanocloud_dockyard.notes import Notes
    from nanocloud_dockyard.recipes import Recipe

INDEX = "README.md"
_MACROS = {
    "bundle": "the bundle's name",
    "dns": "the node's first DNS server",
    "local_ip": "the address from which the node speaks to other machines",
}
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
        sentence(recipe.description),
        notes.intro,
        _install(recipe, contract),
        _options(contract, notes),
        _services(contract),
        _ports(service, contract),
        _volumes(service, contract),
        _tls(service, contract),
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
        rows.append((f"[{service}]({service}.md)", cell(recipe.description), links))
    head = (
        "# The catalogue\n\n"
        "Services that `nanocloud install` knows. Each runs as a user of its own, without any capability, on Debian.\n"
        "`nanocloud dockyard build SERVICE` makes a service's image from its recipe.\n\n"
    )
    return made | {INDEX: head + table(("service", "what it is", "can use"), rows) + "\n"}


def _selected(recipe: Recipe) -> Sequence[str]:
    """Services that the recipe can select, each once, in the order of the label."""
    options = image_contract(recipe.labels).options.values()
    return list(dict.fromkeys(v for option in options for v, s in option.choices.items() if s.selects_service))


def _install(recipe: Recipe, contract: ImageContract) -> str:
    needed = [
        value
        for option in contract.options.values()
        for value, setting in list(option.choices.items())[:1]
        if setting.selects_service and not option.optional
    ]
    built = list(dict.fromkeys([*needed, recipe.service]))
    first = [f"nanocloud dockyard build {' '.join(built)}", f"nanocloud install {recipe.service}"]
    others = []
    for option in contract.options.values():
        for value, setting in list(option.choices.items())[0 if option.optional else 1 :]:
            if not _enough_alone(contract, setting):
                continue
            if setting.selects_service and value not in built:
                others.append(f"nanocloud dockyard build {value}")
                built.append(value)
            others.append(f"nanocloud install {recipe.service} --option {option.name}={value}")
    text = "## Install\n\n" + code(first)
    return text + ("\n\nWith other choices, alone or together:\n\n" + code(others) if others else "")


def _enough_alone(contract: ImageContract, setting: Setting) -> bool:
    """Whether the choice can be taken without giving other options: what it requires is there by itself."""
    for requirement in setting.requires:
        option, source = contract.options.get(requirement.option), contract.imports.get(requirement.option)
        imported = setting.selects_service and source is not None and source.option == setting.option
        if option and option.optional and not imported and not (option.free and option.free.default):
            return False
        if option and option.choices and requirement.value not in (None, next(iter(option.choices))):
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
        rows.append((f"`{option.name}`", _default(option), choices, requires, cell(meaning.strip())))
    if not rows:
        return ""
    made = table(("option", "default", "choices", "requires", "meaning"), rows)
    return f"## Options\n\n{made}"


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
    if default.macro in _MACROS:
        return _MACROS[default.macro]
    return f"`{cell(default.text)}`" if default.text else "empty"


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
                cell(f"`{' '.join((binding.command, *binding.words))}`")
                for other in contract.settings
                for binding in other.bindings
                if binding.runs_in == option.name and (other.option != option.name or other.choice == value)
            ]
            cells = (f"`{option.name}={value}`", f"[{value}]({value}.md)", ", ".join(imports), ", ".join(commands))
            rows.append(cells)
    if not rows:
        return ""
    head = wrapped("A selected service that is not there is installed first, and its binding commands run in it.")
    return f"## Services it can use\n\n{head}\n\n" + table(("option", "service", "takes from it", "runs in it"), rows)


def _taken(name: str, contract: ImageContract) -> bool:
    """Whether a name that a service may supply comes from there: a default of the label's own stands in otherwise."""
    option = contract.options.get(name)
    return option is None or (option.free is not None and option.free.default is None)


def _ports(service: str, contract: ImageContract) -> str:
    rows, inside = [], None
    for name, text in _placed(contract, Reserved.PORT).items():
        if "$" in text or text.startswith("!"):
            rows.append((f"`{name}`", f"`{cell(text)}`", "as the options say"))
            continue
        port, published = parse_port(text), ""
        if port.host_port is not None:
            published = f"port {port.host_port}" + (f" of {port.host_ip}" if port.host_ip else "")
        elif inside is None:
            inside = f"{name}={port.container_port}->{port.container_port}/{port.protocol}"
        rows.append((f"`{name}`", f"`{port.container_port}/{port.protocol}`", published))
    if not rows:
        return ""
    text = f"## Ports\n\nOther services in the namespace `default` reach it as `{service}.default.svc`.\n\n"
    text += table(("option", "port", "published on the machine"), rows)
    if inside:
        text += "\n\nTo publish one on the machine:\n\n"
        text += code([f"nanocloud install {service} --option '{inside}'"])
    return text


def _volumes(service: str, contract: ImageContract) -> str:
    sizes = _placed(contract, Reserved.VOLUME_SIZE)
    rows, options = [], []
    for name, path in _placed(contract, Reserved.VOLUME).items():
        options.append(name.replace("volume_", "volume_size_"))
        rows.append((f"`{name}`", f"`{cell(path)}`", f"`{sizes[options[-1]]}`, option `{options[-1]}`"))
    if not rows:
        return ""
    text = "## Volumes\n\n" + table(("option", "mounted at", "size"), rows)
    text += "\n\nThe size is fixed once the volume exists:\n\n"
    return text + code([f"nanocloud install {service} --option {options[0]}=10Gi"])


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


def _tls(service: str, contract: ImageContract) -> str:
    defaults = [setting.default for setting in contract.settings if setting.default]
    if not any(default.macro == "tls" and default.words[:1] == ("cert",) for default in defaults):
        return ""
    return "## TLS\n\n" + wrapped(
        f"Its certificate is for `{service}.default.svc` and the other [names of the service](../images.md#tls), and "
        "the node's authority has issued it. Clients find the authority's own in `/run/nanocloud/tls/ca.crt` where "
        "their image asks for it, and in `/var/lib/nanocloud.io/secure_assets/ca.crt` on the machine."
    )


def _dependants(recipe: Recipe, used_by: Iterable[str]) -> str:
    values = ", ".join(f"`{name}`" for name in recipe.exports.options)
    lines = []
    if users := ", ".join(f"[{name}]({name}.md)" for name in used_by):
        lines.append(f"Used by {users}.")
    if values:
        lines.append(f"Another service that selects this one can take these values from it: {values}.")
    if recipe.exports.bindings:
        lines.append("It can [bind](../images.md#bindings) these commands:")
    if not lines:
        return ""
    text = "## For services that use it\n\n" + wrapped(" ".join(lines))
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
    return bullet(f"`{usage}`: {text}")


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
