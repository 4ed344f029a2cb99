"""What processes cost: memory by PSS, time on a processor, and how often they wake. All from /proc; see proc(5).

A process that ends while it is looked at counts as not there: what it has cost is its parent's by then.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import attrs

_TICKS = os.sysconf("SC_CLK_TCK")


@attrs.frozen
class Cost:
    """Of a group of processes since each began."""

    cpu_seconds: float
    """Also of their children that have ended, as the commands that readiness is asked by."""
    wakes: int
    """Times that a thread gave up the processor of itself, to wait: it was woken as often."""

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.cpu_seconds - other.cpu_seconds, self.wakes - other.wakes)


def everyone() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def descendants(pid: int, *, not_below: str = "") -> list[int]:
    """``pid`` and all below it, without processes of one name and what is below those."""
    found, left = [], [pid]
    while left:
        found.append(parent := left.pop())
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            left += [child for child in map(int, _read(task).split()) if name_of(child) != not_below]
    return found


def name_of(pid: int) -> str:
    return _read(Path(f"/proc/{pid}/comm")).strip()


def words_of(pid: int) -> list[str]:
    """Its command line."""
    return _read(Path(f"/proc/{pid}/cmdline")).split("\0")


def pss_megabytes(pids: Iterable[int]) -> float:
    """Proportional set size: what is shared counts in parts, so the sum over processes is what they take."""
    lines = [line for pid in pids for line in _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def cost_of(pids: Iterable[int]) -> Cost:
    cpu, wakes = 0.0, 0
    for pid in pids:
        fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
        cpu += sum(map(int, fields[11:15])) / _TICKS
        for task in Path(f"/proc/{pid}/task").glob("*/status"):
            wakes += sum(int(line.split()[1]) for line in _read(task).splitlines() if line.startswith("voluntary"))
    return Cost(cpu, wakes)


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
