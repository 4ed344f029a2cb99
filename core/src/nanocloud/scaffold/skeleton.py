"""A contract's abstract class becomes a module with a class that implements it, as far as it can be written without
knowing how.

Signatures and docstrings are taken from the class, imports from the module that the class stands in. A method that
nobody can write but the author raises NotImplementedError with the first sentence that the contract says about it.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import sys
import textwrap
from string import Template
from typing import TYPE_CHECKING, Any

import attrs

from nanocloud.providers.base import Provider

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FunctionType

    from nanocloud.scaffold.contracts import Contract
    from nanocloud.scaffold.names import PluginName

WIDTH = 120
_INDENT = " " * 4
_SENTENCE_END = re.compile(r"(?<=[.!?])\s")
_FOLDERS = {"state_dir": "``state_dir`` survives a reboot", "run_dir": "``run_dir`` does not"}
_LIFESPAN_IMPORTS = {("collections.abc", "AsyncIterator"), ("contextlib", "asynccontextmanager")}


@attrs.frozen
class Member:
    """One abstract member of a contract's class."""

    name: str
    function: FunctionType
    is_property: bool
    owner: type

    @property
    def docstring(self) -> str:
        return inspect.cleandoc(self.function.__doc__ or "")

    @property
    def sentence(self) -> str:
        """The first thing that the contract says about it."""
        return _SENTENCE_END.split(" ".join(self.docstring.split()))[0]


def members(contract: type[Provider]) -> Iterator[Member]:
    """The abstract members, those of Provider first, then in the order in which the contract has them."""
    for owner in reversed(contract.__mro__):
        for name, value in vars(owner).items():
            if name in contract.__abstractmethods__ and getattr(value, "__isabstractmethod__", False):
                is_property = isinstance(value, property)
                yield Member(name, value.fget if is_property else value, is_property, owner)


def imported(contract: Contract) -> set[tuple[str, str]]:
    """(module, name) of all that the provider's module imports."""
    found = members(contract.provider)
    wanted = {pair for member in found if member.name not in ("name", "lifespan") for pair in _imports_of(member)}
    wanted |= {*_LIFESPAN_IMPORTS, *contract.start.imports, (contract.module.__name__, contract.provider.__name__)}
    if contract.start.folders:
        wanted.add(("pathlib", "Path"))
    return wanted


def provider_module(contract: Contract, names: PluginName, made: str) -> str:
    """The source of the module that holds the provider, of the class ``made``."""
    parts = [
        f'"""The {contract.name} provider: {contract.summary}"""',
        "from __future__ import annotations",
        import_lines(imported(contract)),
        f"\nclass {made}({contract.provider.__name__}):",
    ]
    body = [
        *_constructor(contract, names),
        *(_member(member, contract, names) for member in members(contract.provider)),
    ]
    return "\n\n".join(parts) + "\n" + textwrap.indent("\n\n".join(body), _INDENT) + "\n"


def import_lines(wanted: Iterable[tuple[str, str]]) -> str:
    """Sorted as isort sorts them: the standard library, others, this project. An empty name imports the module."""
    sections: dict[int, dict[str, set[str]]] = {}
    for module, name in wanted:
        top = module.partition(".")[0]
        rank = 0 if top in sys.stdlib_module_names else 2 if top.startswith("nanocloud_") else 1
        sections.setdefault(rank, {}).setdefault(module, set()).add(name)
    return "\n\n".join(_section(sections[rank]) for rank in sorted(sections))


def _section(modules: dict[str, set[str]]) -> str:
    plain = [f"import {module}" for module in sorted(modules) if "" in modules[module]]
    return "\n".join([*plain, *(line for module in sorted(modules) for line in _import_from(module, modules[module]))])


def _import_from(module: str, names: set[str]) -> Iterator[str]:
    aliased = {name for name in names if " as " in name}
    if together := sorted(names - aliased - {""}):
        line = f"from {module} import {', '.join(together)}"
        long = f"from {module} import (\n" + "".join(f"{_INDENT}{name},\n" for name in together) + ")"
        yield line if len(line) <= WIDTH else long
    yield from (f"from {module} import {name}" for name in sorted(aliased))


def _constructor(contract: Contract, names: PluginName) -> list[str]:
    start = contract.start
    if start.folders:
        head = f"def __init__(self, *, {', '.join(f'{folder}: Path' for folder in start.folders)}) -> None:"
        uses = ", ".join(_FOLDERS[folder] for folder in start.folders)
        said = f'{_INDENT}"""{uses}. Nothing is touched before ``lifespan``."""'
        return ["\n".join([head, said, *(f"{_INDENT}self._{folder} = {folder}" for folder in start.folders)])]
    if start.prepare:
        return [f"def __init__(self) -> None:\n{_INDENT}{_filled(start.prepare, names)}"]
    return []


def _member(member: Member, contract: Contract, names: PluginName) -> str:
    if member.name == "name":
        return f'@property\ndef name(self) -> str:\n{_INDENT}return "{names.name}"'
    if member.name == "lifespan":
        head = "@asynccontextmanager\nasync def lifespan(self) -> AsyncIterator[None]:"
        return "\n".join([head, _docstring(member), f"{_INDENT}yield"])
    body = contract.start.bodies.get(member.name)
    lines = _filled(body, names) if body is not None else _not_written(member)
    head = ("@property\n" if member.is_property else "") + _signature(member)
    return "\n".join([head, _docstring(member), textwrap.indent(lines, _INDENT)])


def _signature(member: Member) -> str:
    keyword = "async def" if inspect.iscoroutinefunction(member.function) else "def"
    signature = inspect.signature(member.function)
    parameters = _parameters(signature)
    head, tail = f"{keyword} {member.name}(", f") -> {signature.return_annotation}:"
    line = head + ", ".join(parameters) + tail
    if len(_INDENT + line) <= WIDTH:
        return line
    return f"{head}\n{_INDENT}{', '.join(parameters)}\n{tail}"


def _parameters(signature: inspect.Signature) -> list[str]:
    shown: list[str] = []
    star = False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            shown, star = [*shown, "*"], True
        text = parameter.name
        if parameter.annotation is not parameter.empty:
            text += f": {parameter.annotation}"
        if parameter.default is not parameter.empty:
            text += f" = {parameter.default!r}"
        shown.append(text)
    return shown


def _docstring(member: Member) -> str:
    text = member.docstring
    return textwrap.indent(f'"""{text}\n"""' if "\n" in text else f'"""{text}"""', _INDENT)


def _not_written(member: Member) -> str:
    said = f"{member.name} is not written yet. The contract begins: {member.sentence}"
    line = f"raise NotImplementedError({_quoted(said)})"
    if len(2 * _INDENT + line) <= WIDTH:
        return line
    words = re.split(r"(?<= )", said)
    pieces = [""]
    for word in words:
        if len(3 * _INDENT + _quoted(pieces[-1] + word)) > WIDTH:
            pieces.append("")
        pieces[-1] += word
    return "raise NotImplementedError(\n" + "".join(f"{_INDENT}{_quoted(piece)}\n" for piece in pieces) + ")"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _filled(text: str, names: PluginName) -> str:
    return Template(text).substitute(name=names.name, macro=names.macro, package=names.package)


def _imports_of(member: Member) -> Iterator[tuple[str, str]]:
    """(module, name) of every name in the member's annotations, as the module of its class has it."""
    module = inspect.getmodule(member.owner)
    assert module is not None
    known = _known(ast.parse(inspect.getsource(module)), module.__name__)
    signature = inspect.signature(member.function)
    annotations: list[Any] = [parameter.annotation for parameter in signature.parameters.values()]
    for annotation in (*annotations, signature.return_annotation):
        if annotation is inspect.Signature.empty:
            continue
        for node in ast.walk(ast.parse(annotation, mode="eval")):
            if isinstance(node, ast.Name) and not hasattr(builtins, node.id):
                yield known[node.id]


def _known(tree: ast.Module, name: str) -> dict[str, tuple[str, str]]:
    """Where the names of a module come from: what it imports, also for types only, and what it defines."""
    found: dict[str, tuple[str, str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: (node.module or "", ast.unparse(alias)) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name: (alias.name, "") for alias in node.names}
    for statement in tree.body:
        match statement:
            case ast.ClassDef(name=defined) | ast.Assign(targets=[ast.Name(id=defined)]):
                found[defined] = (name, defined)
    return found
