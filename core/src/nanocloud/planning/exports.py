"""The label ``io.nanocloud.exports``: what dependants of an image may use.

Format: ``{"options": ["host", "port"], "bindings": ["create_user"]}``; both members may be absent. Without the label
nothing is exported. ``host`` is the service's DNS name and needs no option of that name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nanocloud.errors import LabelError
from nanocloud.planning.contract import EXPORTS_LABEL, Exports
from nanocloud.planning.label import COMMAND, load_object
from nanocloud.planning.reserved import NAME

if TYPE_CHECKING:
    import re
    from collections.abc import Mapping

MAX_NAMES = 256
HOST = "host"


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
        if member not in ("options", "bindings"):
            raise LabelError(f"{EXPORTS_LABEL}: {member[:60]!a} is not known here; allowed: options, bindings")
    return Exports(
        options=_names("options", members.get("options", []), NAME, "an option name"),
        bindings=_names("bindings", members.get("bindings", []), COMMAND, "a binding command"),
    )


def _names(member: str, value: object, form: re.Pattern[str], what: str) -> frozenset[str]:
    if not isinstance(value, list) or len(value) > MAX_NAMES:
        raise LabelError(f"{EXPORTS_LABEL}.{member}: must be an array of at most {MAX_NAMES} names")
    for index, name in enumerate(value):
        if not isinstance(name, str) or not form.fullmatch(name):
            raise LabelError(f"{EXPORTS_LABEL}.{member}[{index}]: {ascii(name)[:60]} is not {what}")
    return frozenset(value)
