"""The label ``io.nanocloud.exports``: what dependants of an image may use.

Format: ``{"options": ["host", "port"], "bindings": ["create_user"], "owned": {"create_user": [1, 2]}}``; each member
may be absent. Without the label nothing is exported. ``host`` is the service's DNS name and needs no such option.
``owned`` says which arguments of a binding, counted from 1, name something that belongs to one dependant alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nanocloud.errors import LabelError
from nanocloud.planning.contract import EXPORTS_LABEL, Exports
from nanocloud.planning.label import COMMAND, MAX_WORDS, load_object
from nanocloud.planning.reserved import NAME

if TYPE_CHECKING:
    import re
    from collections.abc import Mapping

MAX_NAMES = 256
HOST = "host"
_POSITIONS = range(1, MAX_WORDS + 1)


def image_exports(labels: Mapping[str, str]) -> Exports:
    """The exports of an image; none without the label. Raises LabelError."""
    text = labels.get(EXPORTS_LABEL)
    return Exports() if text is None else parse_exports(text)


def parse_exports(text: str) -> Exports:
    """Read the label's text.

    Raises:
        LabelError: where and why it cannot be used.
    """
    members = load_object(EXPORTS_LABEL, text)
    for member in members:
        if member not in ("options", "bindings", "owned"):
            raise LabelError(f"{EXPORTS_LABEL}: {member[:60]!a} is not known here; allowed: options, bindings, owned")
    bindings = _names("bindings", members.get("bindings", []), COMMAND, "a binding command")
    return Exports(
        options=_names("options", members.get("options", []), NAME, "an option name"),
        bindings=bindings,
        owned=_owned(members.get("owned", {}), bindings),
    )


def _owned(value: object, bindings: frozenset[str]) -> dict[str, tuple[int, ...]]:
    where = f"{EXPORTS_LABEL}.owned"
    if not isinstance(value, dict):
        raise LabelError(f"{where}: must be an object")
    for command, positions in value.items():
        if command not in bindings:
            raise LabelError(f"{where}: {ascii(command)[:60]} is not among the exported bindings")
        if (
            not isinstance(positions, list)
            or not 1 <= len(positions) <= MAX_WORDS
            or not all(map(_position, positions))
        ):
            raise LabelError(f"{where}.{command}: must be an array of argument positions, 1 to {MAX_WORDS}")
    return {command: tuple(positions) for command, positions in value.items()}


def _position(value: object) -> bool:
    return type(value) is int and value in _POSITIONS


def _names(member: str, value: object, form: re.Pattern[str], what: str) -> frozenset[str]:
    if not isinstance(value, list) or len(value) > MAX_NAMES:
        raise LabelError(f"{EXPORTS_LABEL}.{member}: must be an array of at most {MAX_NAMES} names")
    for index, name in enumerate(value):
        if not isinstance(name, str) or not form.fullmatch(name):
            raise LabelError(f"{EXPORTS_LABEL}.{member}[{index}]: {ascii(name)[:60]} is not {what}")
    return frozenset(value)
