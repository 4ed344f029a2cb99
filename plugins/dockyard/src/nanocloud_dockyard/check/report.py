"""What a check found, for people and for programs."""

from __future__ import annotations

from typing import Any

import attrs

from nanocloud.output import colour, printable, table
from nanocloud_dockyard.check.findings import Finding, Level, level_of
from nanocloud_dockyard.check.trial import Measured

_MIB = 1024 * 1024
_COLOURS = {"error": "red", "warning": "yellow", "info": "dim"}
_ORDER = ("error", "warning", "info")


@attrs.frozen(kw_only=True)
class Report:
    subject: str
    findings: tuple[Finding, ...]
    measured: tuple[Measured, ...] = ()
    tried: bool = False
    """Whether it was installed; else the level is what its files allow at best."""

    @property
    def level(self) -> Level:
        return level_of(self.findings)

    def text(self) -> str:
        parts = []
        if self.findings:
            rows = [
                (f.severity, f.rule, printable(f.where), printable(f.message), f.todo)
                for f in sorted(self.findings, key=lambda f: _ORDER.index(f.severity))
            ]
            parts.append(table(("SEVERITY", "RULE", "WHERE", "WHAT", "TO DO"), rows))
        if self.measured:
            rows_measured = [(m.options, _seconds(m), _memory(m)) for m in self.measured]
            parts.append(table(("INSTALLED WITH", "READY AFTER", "IDLE MEMORY"), rows_measured))
        reach = "" if self.tried or self.level is Level.REFUSED else " at best: it was not installed"
        worst = next((s for s in _ORDER if any(f.severity == s for f in self.findings)), "")
        word = colour(self.level.word, _COLOURS.get(worst, "green"))
        parts.append(f"{printable(self.subject)}: {word}{reach}")
        return "\n\n".join(parts)

    def to_json(self) -> dict[str, Any]:
        return {
            "image": self.subject,
            "level": self.level.word,
            "installed": self.tried,
            "findings": [
                {"rule": f.rule, "severity": f.severity, "where": f.where, "message": f.message, "todo": f.todo}
                for f in self.findings
            ],
            "measured": [
                {"options": m.options, "readySeconds": m.ready_seconds, "idleBytes": m.idle_bytes}
                for m in self.measured
            ],
        }


def _seconds(measured: Measured) -> str:
    return "not ready" if measured.ready_seconds is None else f"{measured.ready_seconds:.1f} s"


def _memory(measured: Measured) -> str:
    return "unknown" if measured.idle_bytes is None else f"{measured.idle_bytes / _MIB:.0f} MiB"
