"""Manifests: YAML text to JSON data and back.

YAML is read by the rules of YAML 1.2's core schema (``on``, ``no``, ``012`` and dates are text), keys must be text and
may not repeat, and anchors are refused: an alias can make a small text an endless document.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from nanocloud.errors import BadRequestError

MAX_DEPTH = 100


class _Loader(yaml.CSafeLoader):
    """Only JSON's types, resolved as YAML 1.2 does."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own name

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _problem(key_node, f"the key {key!r} must be text; put it in quotes")
            if key in seen:
                raise _problem(key_node, f'the key "{key}" appears twice')
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_TAG = "tag:yaml.org,2002:"
_TAGS = tuple(_TAG + name for name in ("str", "int", "float", "bool", "null", "map", "seq"))
_NUMBER_STARTS = list("-+.0123456789")
_PLAIN = {
    "null": (re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    "bool": (re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    "int": (re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), _NUMBER_STARTS),
    "float": (
        re.compile(r"^[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]*(?:[eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)$"),
        _NUMBER_STARTS,
    ),
}
for _name, (_pattern, _starts) in _PLAIN.items():
    _Loader.add_implicit_resolver(_TAG + _name, _pattern, _starts)


def _problem(at: Any, message: str) -> yaml.MarkedYAMLError:
    """``at`` is a node or an event: what has a place in the text."""
    return yaml.MarkedYAMLError(problem=message, problem_mark=at.start_mark)


def load_yaml(text: str | bytes) -> list[Any]:
    """Every document of a YAML text (JSON is YAML); empty documents are left out.

    Raises:
        BadRequestError: says what is wrong, with line and column.
    """
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise _problem(event, "anchors and aliases are not allowed")
            tag = getattr(event, "tag", None)
            if tag not in (None, "!", *_TAGS):
                raise _problem(event, f"the tag {tag!r} is not allowed")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise _problem(event, f"deeper than {MAX_DEPTH} levels")
        return [document for document in yaml.load_all(text, Loader=_Loader) if document is not None]
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise BadRequestError(f"the YAML cannot be read{where}: {exc.problem}") from exc
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise BadRequestError(f"the YAML cannot be read: {exc}") from exc


class _Dumper(yaml.CSafeDumper):
    """Text of several lines is written as a block; nothing is written as an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.CSafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    # The dumper quotes what YAML 1.1 would misread; 1.2 reads some other words as numbers.
    if any(pattern.match(text) for pattern, _ in _PLAIN.values()):
        style = "'"
    return dumper.represent_scalar(_TAG + "str", text, style=style)


_Dumper.add_representer(str, _text)


def dump_yaml(document: Any) -> str:
    """Readable YAML in the document's own order."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
