"""Label and field selectors, as list, watch and delete-collection take them.

Label grammar: ``a=b``, ``a==b``, ``a!=b``, ``a in (x,y)``, ``a notin (x,y)``, ``a``, ``!a``, joined by commas.
Field grammar: ``path=value``, ``path==value``, ``path!=value``, joined by commas; a backslash escapes the next one.
"""

from __future__ import annotations

import re

import attrs

from nanocloud.errors import BadRequestError
from nanocloud.models.kinds import ResourceKind, value_at
from nanocloud.models.meta import Object, is_label_value, is_qualified_name, labels_of

_LIMIT = 4096
_SET = re.compile(r"\s*(?P<key>[^\s!=(),]+)\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)\s*")
_EQUALS = re.compile(r"\s*(?P<key>[^\s!=(),]+)\s*(?P<op>!=|==|=)\s*(?P<values>[^\s!=(),]*)\s*")
_EXISTS = re.compile(r"\s*(?P<not>!?)\s*(?P<key>[^\s!=(),]+)\s*")


@attrs.frozen
class Requirement:
    key: str
    wanted: bool
    """Whether having one of ``values`` is wanted, or its opposite."""
    values: frozenset[str] | None
    """None: any value."""

    def matches(self, labels: dict[str, str]) -> bool:
        if self.values is None:
            return (self.key in labels) is self.wanted
        return (labels.get(self.key) in self.values) is self.wanted


@attrs.frozen
class Selector:
    """What an object must be like. An empty one matches all."""

    labels: tuple[Requirement, ...] = ()
    fields: tuple[tuple[str, bool, str], ...] = ()
    """(path, wanted, value)."""

    def __bool__(self) -> bool:
        return bool(self.labels or self.fields)

    def matches(self, obj: Object) -> bool:
        labels = labels_of(obj) if self.labels else {}
        return all(need.matches(labels) for need in self.labels) and all(
            (_text(obj, path) == value) is wanted for path, wanted, value in self.fields
        )

    @property
    def exact_name(self) -> str | None:
        """The one name that can match, where the selector says so: a read instead of a list."""
        names = {value for path, wanted, value in self.fields if path == "metadata.name" and wanted}
        return names.pop() if len(names) == 1 else None


def _text(obj: Object, path: str) -> str:
    value = value_at(obj, path)
    if path == "source":
        value = value_at(obj, "source.component")
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def parse(kind: ResourceKind, *, labels: str = "", fields: str = "") -> Selector:
    """Read both selectors of a request.

    Raises:
        BadRequestError: syntax, or a field that the kind cannot be selected by; lists those it can.
    """
    return Selector(parse_labels(labels), _parse_fields(kind, fields))


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """Raises BadRequestError: names the part that cannot be read."""
    if len(text) > _LIMIT:
        raise BadRequestError(f"labelSelector is longer than {_LIMIT} characters")
    found: list[Requirement] = []
    position = 0
    while position < len(text):
        match = _SET.match(text, position) or _EQUALS.match(text, position) or _EXISTS.match(text, position)
        end = match.end() if match else position
        if match is None or (end < len(text) and text[end] != ","):
            raise BadRequestError(f"unable to parse labelSelector {text!r} at {text[position : position + 40]!r}")
        found.append(_requirement(match))
        position = end + 1
    return tuple(found)


def _requirement(match: re.Match[str]) -> Requirement:
    key = match["key"]
    if not is_qualified_name(key):
        raise BadRequestError(f"labelSelector: {key!r} is not a label key")
    groups = match.groupdict()
    if "not" in groups:
        return Requirement(key, not groups["not"], None)
    values = frozenset(part.strip() for part in groups["values"].split(","))
    for value in values:
        if not is_label_value(value):
            raise BadRequestError(f"labelSelector: {value!r} is not a label value")
    return Requirement(key, groups["op"] in ("in", "=", "=="), values)


def _parse_fields(kind: ResourceKind, text: str) -> tuple[tuple[str, bool, str], ...]:
    if len(text) > _LIMIT:
        raise BadRequestError(f"fieldSelector is longer than {_LIMIT} characters")
    allowed = ["metadata.name", *(["metadata.namespace"] if kind.namespaced else []), *kind.selectable]
    found: list[tuple[str, bool, str]] = []
    for part in _split(text, ","):
        if not part:
            continue
        path, wanted, value = _field_term(part, text)
        if path not in allowed:
            known = ", ".join(allowed)
            raise BadRequestError(f'field label not supported: "{path}"; {kind.plural} can be selected by {known}')
        found.append((path, wanted, value))
    return tuple(found)


def _field_term(part: str, text: str) -> tuple[str, bool, str]:
    for operator, wanted in (("!=", False), ("==", True), ("=", True)):
        pieces = _split(part, operator)
        if len(pieces) == 2:
            return pieces[0].strip(), wanted, _unescape(pieces[1])
    raise BadRequestError(f"invalid selector: {text!r}; can't understand {part!r}")


def _split(text: str, separator: str) -> list[str]:
    """Split at separators that no backslash escapes."""
    parts, start, at = [], 0, 0
    while at < len(text):
        if text[at] == "\\":
            at += 2
        elif text.startswith(separator, at):
            parts.append(text[start:at])
            at += len(separator)
            start = at
        else:
            at += 1
    return [*parts, text[start:]]


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)
