"""The contracts, sentence by sentence, as their docstrings say them.

A contract is the text of ``nanocloud.providers.<contract>`` and of ``nanocloud.providers.base``: the docstrings of the
modules, their classes and methods, and the strings below fields and constants. Each sentence has a *place*: the method
that promises it (``attach``), a class, field or constant (``SandboxNetwork.ports``, ``SandboxId``), or nothing for the
module itself. An entry below ``Raises:`` is one sentence. What stands after ``Source:`` promises nothing.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`*])")
_HEADING = re.compile(r"\A\*[^*]+\*\s+")  # as in: *Order.* Keys are ...
_SOURCE = re.compile(r"(\A|\s)Source:.*\Z", re.DOTALL)
_PARAGRAPHS = re.compile(r"\n\s*\n")
_ENTRY = re.compile(r"\n {4}(?=\S)")
_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class Sentence(NamedTuple):
    """One promise of a contract."""

    contract: str
    place: str
    text: str

    def __str__(self) -> str:
        where = ", ".join(filter(None, (self.contract, self.place)))
        return f'contract {where}: "{self.text}"'


@cache
def sentences(contract: str) -> tuple[Sentence, ...]:
    """Every sentence of ``nanocloud.providers.<contract>``, in order."""
    module = importlib.import_module(f"nanocloud.providers.{contract}")
    found = _docstrings(ast.parse(inspect.getsource(module)), "")
    return tuple(Sentence(contract, place, text) for place, doc in found for text in split(doc))


def quoted(contract: str, quote: str) -> tuple[Sentence, ...]:
    """The sentences that ``quote`` consists of, side by side in one place of the contract, or else of base.

    Where several places say the same, ``place`` names them all: ``get, range``.

    Raises:
        LookupError: it is no such quotation.
    """
    wanted = split(quote)
    for everything in (sentences(contract), sentences("base")):
        starts = range(len(everything) - len(wanted) + 1)
        runs = [everything[start : start + len(wanted)] for start in starts]
        places = [
            run[0].place
            for run in runs
            if [sentence.text for sentence in run] == wanted and {sentence.place for sentence in run} == {run[0].place}
        ]
        if places:
            return tuple(Sentence(contract, ", ".join(places), text) for text in wanted)
    raise LookupError(f"contract {contract} does not say: {' '.join(wanted)}")


def split(docstring: str) -> list[str]:
    """The sentences of a docstring, each on one line."""
    found: list[str] = []
    for paragraph in _PARAGRAPHS.split(inspect.cleandoc(docstring)):
        paragraph = _SOURCE.sub("", paragraph)
        if paragraph.startswith("Raises"):
            _, *entries = _ENTRY.split(paragraph)
            found += [" ".join(entry.split()) for entry in entries]
        else:
            found += filter(None, _END.split(" ".join(_HEADING.sub("", paragraph).split())))
    return found


def _docstrings(node: _Documented, place: str) -> Iterator[tuple[str, str]]:
    if doc := ast.get_docstring(node):
        yield place, doc
    for before, statement in zip([None, *node.body], node.body, strict=False):
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings(statement, _below(place, statement.name))
        elif before is not None and (name := _assigned(before)) and (text := _string(statement)):
            yield _below(place, name), text


def _below(place: str, name: str) -> str:
    # A method of the contract's class is known by its own name: that is what its author looks for.
    return name if not place or place.endswith("Provider") or place == "Removable" else f"{place}.{name}"


def _assigned(statement: ast.stmt) -> str:
    match statement:
        case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
            return name
    return ""


def _string(statement: ast.stmt) -> str:
    match statement:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return text
    return ""
