"""The trace of a random story: one line for everything that happened, the same for the same seed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable


class Trace:
    def __init__(self, echo: Callable[[str], None] | None = None) -> None:
        """``echo`` is told of each line as it comes."""
        self.lines: list[str] = []
        self._echo = echo

    def add(self, what: str) -> None:
        """Must hold nothing that differs from run to run: no paths, no secrets, no memory addresses."""
        line = f"{trio.current_time():10.3f} {what}"
        self.lines.append(line)
        if self._echo is not None:
            self._echo(line)

    @property
    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()
