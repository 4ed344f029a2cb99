"""The files of a new plugin, and how they come to the disk: all of them or none."""

from __future__ import annotations

import os
from importlib.metadata import metadata
from importlib.resources import files
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import attrs

from nanocloud import __version__
from nanocloud.errors import AlreadyExistsError, NanocloudError, NotFoundError, UsageError
from nanocloud.macros import BuiltinMacros
from nanocloud.plugins.offers import ALL_ARE_USED
from nanocloud.scaffold.contracts import CONTRACTS, Contract
from nanocloud.scaffold.names import PluginName, plugin_name
from nanocloud.scaffold.skeleton import import_lines, imported, members, provider_module

if TYPE_CHECKING:
    from collections.abc import Sequence


@attrs.frozen
class NewPlugin:
    """What was written, and where."""

    directory: Path
    distribution: str
    to_write: tuple[str, ...]
    """Methods that raise until they are written, as ``runtime.create``."""


def new_plugin(name: str, provides: Sequence[str], directory: Path | None = None) -> NewPlugin:
    """Write the package of a plugin; ``directory`` is made, by default ``./nanocloud-<name>``.

    Raises:
        UsageError: a name or a contract that cannot be.
        AlreadyExistsError: the name is taken, or the directory is there.
        NotFoundError: the directory's own folder is not there.
    """
    names, contracts = plugin_name(name), _contracts(provides)
    if "macro" in provides and names.macro in BuiltinMacros().macros:
        raise AlreadyExistsError(f"the macro !{names.macro} is core's own")
    target = directory or Path(names.distribution)
    _write(target, _package(names, contracts))
    to_write = tuple(f"{contract.name}.{method}" for contract in contracts for method in _missing(contract))
    return NewPlugin(target, names.distribution, to_write)


def _contracts(provides: Sequence[str]) -> list[Contract]:
    unique = list(dict.fromkeys(provides))
    for name in unique:
        if name not in CONTRACTS:
            raise UsageError(f"{name!r} is not a contract; there are {', '.join(CONTRACTS)}")
    if not unique:
        raise UsageError("a plugin provides something", hint=f"--provides {'|'.join(CONTRACTS)}")
    return [Contract(name) for name in unique]


def _missing(contract: Contract) -> list[str]:
    written = {"name", "lifespan", *contract.start.bodies}
    return [member.name for member in members(contract.provider) if member.name not in written]


def _write(target: Path, content: dict[str, str]) -> None:
    """Written beside the target and renamed: what fails in the middle leaves nothing behind."""
    if os.path.lexists(target):
        raise AlreadyExistsError(f"{target} exists already", hint="give another --directory, or remove it")
    parent = target.absolute().parent
    if not parent.is_dir():
        raise NotFoundError(f"{target.parent} is no folder", hint="make it first, or give another --directory")
    try:
        with TemporaryDirectory(dir=parent, prefix=f".{target.name}.") as aside:
            made = Path(aside) / target.name
            for name, text in content.items():
                (made / name).parent.mkdir(parents=True, exist_ok=True)
                (made / name).write_text(text, encoding="utf-8")
            made.rename(target)
    except OSError as exc:
        raise NanocloudError(f"cannot write {target}: {exc.strerror}") from exc


def _package(names: PluginName, contracts: Sequence[Contract]) -> dict[str, str]:
    """Paths below the directory, with their content."""
    source = f"src/{names.package}"
    modules = {
        _module(contract, contracts): provider_module(contract, names, _class(contract, contracts, names))
        for contract in contracts
    }
    return {
        ".gitignore": _template("gitignore"),
        "README.md": _readme(names, contracts),
        "pyproject.toml": _project(names, contracts),
        f"{source}/__init__.py": f'"""{_offer(contracts)} for Nanocloud."""\n',
        f"{source}/plugin.py": _plugin(names, contracts),
        f"{source}/py.typed": "",
        **{f"{source}/{module}.py": text for module, text in modules.items()},
        "tests/test_conformance.py": _tests(names, contracts),
    }


def _module(contract: Contract, contracts: Sequence[Contract]) -> str:
    return "provider" if len(contracts) == 1 else contract.name


def _class(contract: Contract, contracts: Sequence[Contract], names: PluginName) -> str:
    taken = {name for _, name in imported(contract)}
    return names.class_of(contract.name, alone=len(contracts) == 1, taken=taken)


def _offer(contracts: Sequence[Contract]) -> str:
    """``An image provider``, ``Runtime and network providers``."""
    *others, last = [contract.name for contract in contracts]
    if not others:
        return f"{'An' if last[0] in 'aeiou' else 'A'} {last} provider"
    return f"{', '.join(others)} and {last} providers".capitalize()


def _project(names: PluginName, contracts: Sequence[Contract]) -> str:
    major, minor, *_ = __version__.split(".")
    return _template(
        "pyproject.toml",
        name=names.name,
        distribution=names.distribution,
        package=names.package,
        description=f"{_offer(contracts)} for Nanocloud",
        core=f">={major}.{minor},<{major}.{int(minor) + 1}",
        python=metadata("nanocloud")["Requires-Python"],
    )


def _readme(names: PluginName, contracts: Sequence[Contract]) -> str:
    settings = [f'{contract.name} = "{names.name}"' for contract in contracts if contract.name not in ALL_ARE_USED]
    choosing = "\n" + _template("choosing.md", settings="\n".join(settings)) if settings else ""
    return _template(
        "README.md",
        distribution=names.distribution,
        name=names.name,
        offer=_offer(contracts),
        modules="\n".join(
            f"- `src/{names.package}/{_module(contract, contracts)}.py`: {contract.summary.replace('``', '`')}"
            for contract in contracts
        ),
        choosing=choosing.rstrip("\n"),
    )


def _plugin(names: PluginName, contracts: Sequence[Contract]) -> str:
    wanted = {("nanocloud", "hookimpl")}
    hooks = []
    for contract in contracts:
        made = _class(contract, contracts, names)
        wanted.add((f"{names.package}.{_module(contract, contracts)}", made))
        config, built = "", f"{made}()"
        if contract.start.folders:
            wanted.add(("nanocloud.config", "NodeConfig"))
            own = f'"{names.name}"' if len(contracts) == 1 else f'"{names.name}" / "{contract.name}"'
            config = "config: NodeConfig"
            arguments = [f"{folder}=config.{folder} / {own}" for folder in contract.start.folders]
            built = f"{made}({arguments[0]})" if len(arguments) == 1 else _exploded(made, arguments)
        hooks.append(f"@hookimpl\ndef {contract.hook}({config}) -> list[{made}]:\n    return [{built}]\n")
    versions = [f'"{contract.name}": "{contract.version}"' for contract in contracts]
    return _template(
        "plugin.py",
        imports=import_lines(wanted),
        versions="{" + ", ".join(versions) + "}" if len(versions) < 4 else "{\n" + _rows(versions) + "}",
        hooks="\n\n".join(hooks).rstrip(),
    )


def _exploded(called: str, arguments: Sequence[str]) -> str:
    """A call within brackets, an argument a line."""
    return (
        f"\n        {called}(\n" + "".join(f"            {argument},\n" for argument in arguments) + "        )\n    "
    )


def _rows(items: Sequence[str]) -> str:
    return "".join(f"    {item},\n" for item in items)


def _tests(names: PluginName, contracts: Sequence[Contract]) -> str:
    wanted = {("collections.abc", "Callable"), ("pytest", "")}
    classes = []
    for contract in contracts:
        made, start = _class(contract, contracts, names), contract.start
        wanted |= {
            ("nanocloud.testkit.suites", contract.suite),
            (f"{names.package}.{_module(contract, contracts)}", made),
            *start.test_imports,
            *([("pathlib", "Path")] if start.folders else []),
        }
        folder, build = "", made
        if start.folders:
            arguments = ", ".join(f'{name}=tmp_path / "{name}"' for name in start.folders)
            folder, build = ", tmp_path: Path", f"lambda: {made}({arguments})"
        extra = Template(start.tests).substitute(macro=names.macro).rstrip()
        classes.append(
            _template(
                "test_class.py",
                made=made,
                suite=contract.suite,
                extra="".join(f"    {line}\n" if line else "\n" for line in [*extra.splitlines(), ""]) if extra else "",
                folder=folder,
                build=build,
            )
        )
    return _template("test_conformance.py", imports=import_lines(wanted), classes="\n\n".join(classes).rstrip())


def _template(file: str, /, **values: str) -> str:
    text = files("nanocloud.scaffold").joinpath("templates", f"{file}.template").read_text(encoding="utf-8")
    return Template(text).substitute(values)
