"""Processes of the host, told apart for good: a number is used again, a number with its start time is not.

Source: proc(5), ``/proc/<pid>/stat``; pidfd_open(2).
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import attrs
import trio

PROC = Path("/proc")
_STATE, _PARENT, _GROUP, _THREADS, _START = 0, 1, 2, 17, 19
"""Places in ``stat`` behind the name, which may itself hold spaces and brackets."""


@attrs.frozen
class Process:
    pid: int
    ticks: int
    """When it began, in clock ticks since boot."""

    @classmethod
    def find(cls, pid: int) -> Process | None:
        """The process that has this number now; None where there is none, or a zombie only."""
        fields = _stat(pid)
        return cls(pid, int(fields[_START])) if fields else None

    @property
    def is_alive(self) -> bool:
        return Process.find(self.pid) == self

    @property
    def command_name(self) -> str:
        """What it calls itself, at most 15 bytes; empty when it has ended."""
        with contextlib.suppress(OSError):
            name = (PROC / str(self.pid) / "comm").read_text(errors="replace")
            return name if self.is_alive else ""
        return ""

    @property
    def parent(self) -> int:
        """0 when it has ended."""
        return int(self._field(_PARENT) or 0)

    @property
    def group(self) -> int:
        """Its process group, which has the number of its leader; 0 when it has ended."""
        return int(self._field(_GROUP) or 0)

    @property
    def is_stopped(self) -> bool:
        return self._field(_STATE) == "T"

    def _field(self, place: int) -> str:
        fields = _stat(self.pid) if self.is_alive else None
        return fields[place] if fields else ""

    def send(self, number: int) -> None:
        """Send a signal; nothing where the process has ended."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self.is_alive:  # asked after the descriptor is held: it cannot be another one's any more
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)

    def kill_group(self) -> None:
        """End it, and with it the process group that it leads, if it leads one."""
        self.send(signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    async def ended(self) -> None:
        """Wait for its end; costs a descriptor and nothing else."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            await trio.lowlevel.checkpoint()
            return
        try:
            if self.is_alive:
                await trio.lowlevel.wait_readable(descriptor)
            else:
                await trio.lowlevel.checkpoint()
        finally:
            os.close(descriptor)


def children(pid: int) -> Iterator[Process]:
    """Living children, of whichever thread."""
    for file in PROC.glob(f"{pid}/task/*/children"):
        with contextlib.suppress(OSError):
            for child in file.read_text().split():
                if process := Process.find(int(child)):
                    yield process


def with_words(ending: str, *words: str) -> Iterator[Process]:
    """Processes whose command line has a word with this ending, and all of these words."""
    for file in PROC.glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found = file.read_bytes().decode(errors="replace").split("\0")
            process = Process.find(int(file.parent.name))
            if process and set(words) <= set(found) and any(word.endswith(ending) for word in found):
                yield process


def _stat(pid: int) -> list[str] | None:
    """Fields from the state on; None where the process is gone, or a zombie of which no thread is at work any more."""
    fields = _fields(pid)
    return None if fields is None or (fields[_STATE] in "ZX" and int(fields[_THREADS]) <= 1) else fields


def _fields(pid: int) -> list[str] | None:
    try:
        return (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
