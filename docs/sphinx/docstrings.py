"""How docstrings and classes of data become pages: the project's sections, and signatures that show defaults.

Sections are ``Args:``, ``Returns:`` and ``Raises:`` (``Raises (on entering):``), each with an indented block below. An
entry of the first and the last is ``name: text``; what is none is a warning, and so an error of the build. All else is
reStructuredText.
"""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

log = logging.getLogger(__name__)

_HEADING = re.compile(r"(Args|Returns|Raises|Raises \(on entering\)):")
_ALIAS = re.compile(r"Alias for field number \d+")
_ENTRY = re.compile(r"([\w., ]+): (.+)")
_FIELDS = {"Args": "param", "Raises": "raises", "Raises (on entering)": "raises"}


def sections(app: Sphinx, what: str, name: str, documented: Any, options: Any, lines: list[str]) -> None:
    """Make the sections of a docstring fields of the page; what Python writes itself for a named tuple is left out."""
    if lines and _ALIAS.fullmatch(lines[0]):
        lines.clear()
    result: list[str] = []
    rest = iter(lines)
    for line in rest:
        heading = _HEADING.fullmatch(line)
        result += _fields(heading[1], _block(rest), name) if heading else [line]
    lines[:] = result


def _block(lines: Iterator[str]) -> list[str]:
    """The indented lines that come next, up to an empty one."""
    block = []
    for line in lines:
        if not line.strip():
            break
        block.append(line)
    return block


def _fields(heading: str, block: list[str], name: str) -> Iterable[str]:
    text = [line.removeprefix("    ") for line in block]
    if heading == "Returns":
        return ["", f":returns: {' '.join(map(str.strip, text))}", ""]
    entries: list[str] = []
    for line in text:
        if line.startswith(" ") and entries:
            entries[-1] += f" {line.strip()}"
        else:
            entries.append(line)
    fields = [""]
    for entry in entries:
        found = _ENTRY.fullmatch(entry)
        if found is None:
            log.warning("%s: %r below %s: is not `name: text`", name, entry, heading)
        else:
            fields.append(f":{_FIELDS[heading]} {found[1]}: {found[2]}")
    return [*fields, ""]


def signature(
    app: Sphinx, what: str, name: str, documented: Any, options: Any, arguments: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Of a class of data: its fields as they are written, with what they are by default."""
    if what != "class" or not attrs.has(documented):
        return arguments, returns
    fields = [field for field in attrs.fields(documented) if field.init]
    words = [f"{field.alias}: {field.type}{_default(field.name, field.default)}" for field in fields]
    keyword_only = ["*"] if any(field.kw_only for field in fields) else []
    return f"({', '.join([*keyword_only, *words])})", None


def _default(name: str, value: Any) -> str:
    if value is attrs.NOTHING:
        return ""
    if name == "mode":
        return f" = {value:#o}"  # as those of files are read
    if isinstance(value, attrs.Factory):  # type: ignore[arg-type]
        value = value.factory() if not value.takes_self else ...
    if inspect.isfunction(value):
        return " = ..."  # it has no better name than an address
    if isinstance(value, Path):
        return f" = Path({str(value)!r})"
    if isinstance(value, enum.Enum):
        return f" = {type(value).__name__}.{value.name}"
    return f" = {type(value).__name__}()" if attrs.has(type(value)) else f" = {value!r}"


def skipped(app: Sphinx, what: str, name: str, documented: Any, skip: bool, options: Any) -> bool | None:
    """What a module only imports is documented where it comes from; the tests of a suite quote the contract."""
    imported = inspect.isclass(documented) and not documented.__module__.startswith("nanocloud")
    return True if imported or name.startswith("test_") else None


def without_object(app: Sphinx, doctree: nodes.document) -> None:
    """That a class is an object says nothing."""
    for paragraph in list(doctree.findall(nodes.paragraph)):
        if paragraph.astext() == "Bases: object":
            paragraph.parent.remove(paragraph)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", sections)
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-skip-member", skipped)
    app.connect("doctree-read", without_object)
    return {"parallel_read_safe": True}
