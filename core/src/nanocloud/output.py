"""Tables, colour on terminals only, JSON and YAML for machines."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

# Control characters, marks that turn the direction of writing, and halves of pairs, which cannot be encoded.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_COLOURS = {"green": "32", "yellow": "33", "red": "31", "dim": "2", "bold": "1"}


def on_terminal() -> bool:
    return sys.stdout.isatty()


def colour(text: str, name: str) -> str:
    """``text`` in colour where it is looked at, plain everywhere else and with NO_COLOR."""
    if not on_terminal() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{_COLOURS[name]}m{text}\x1b[0m"


def printable(text: object) -> str:
    """Text of the API on one line, without what could steer a terminal."""
    return harmless(str(text).replace("\n", " "))


def harmless(text: object) -> str:
    """Text without what could steer a terminal; it keeps its lines."""
    return _CONTROL.sub("?", str(text))


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as they need, as kubectl prints them."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [
        max(len(header), *(len(row[i]) for row in cells)) if cells else len(header) for i, header in enumerate(headers)
    ]
    lines = []
    for row in [list(headers), *cells]:
        lines.append("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return "\n".join(lines)


def dump(data: Any, style: str) -> str:
    """``json`` or ``yaml``."""
    if style == "yaml":
        import yaml

        return str(yaml.safe_dump(data, sort_keys=False)).rstrip()
    return json.dumps(data, indent=2)
