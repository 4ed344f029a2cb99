"""Pieces of Markdown as the documentation is laid out: lines of at most 120 characters, but tables and code."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_WIDTH = 120


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table without the columns that are empty in every row."""
    rows = list(rows)
    kept = [n for n in range(len(head)) if any(row[n] for row in rows)]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line[n] for n in kept) + " |" for line in lines)


def cell(text: str) -> str:
    """Text that cannot leave its cell."""
    return text.replace("\n", " ").replace("|", "\\|")


def code(commands: Iterable[str]) -> str:
    return "```sh\n" + "\n".join(commands) + "\n```"


def sentence(text: str) -> str:
    return wrapped(text if text.endswith(".") else f"{text}.")


def bullet(text: str) -> str:
    return wrapped(text, first="- ", following="  ")


def wrapped(text: str, *, first: str = "", following: str = "") -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=following,
        break_long_words=False,
        break_on_hyphens=False,
    )
