"""Who a process is: its number and the moment it started, so that a reused number is never mistaken for it.

Read from ``/proc/<pid>/stat`` (proc(5)): after the command in parentheses field 3 is the state, 4 the parent, 6 the
session and 22 the start in ticks since boot.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@attrs.frozen
class Process:
    pid: int
    start_ticks: int


@attrs.frozen
class Stat:
    state: str
    parent: int
    session: int
    start_ticks: int


def read_stat(pid: int) -> Stat | None:
    """None when there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return Stat(fields[0].decode(), int(fields[1]), int(fields[3]), int(fields[19]))


def identify(pid: int) -> Process | None:
    stat = read_stat(pid)
    return Process(pid, stat.start_ticks) if stat else None


def open_pidfd(process: Process) -> int | None:
    """A descriptor of that very process; None when it is gone (reaped), whoever has its number now."""
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:
        return None
    if identify(process.pid) == process:
        return fd
    os.close(fd)
    return None


def is_alive(process: Process) -> bool:
    """False for a zombie too: nothing of it runs any more."""
    stat = read_stat(process.pid)
    return stat is not None and stat.start_ticks == process.start_ticks and stat.state not in "ZX"


def send_signal(process: Process, number: int) -> bool:
    """False when the process is gone."""
    fd = open_pidfd(process)
    if fd is None:
        return False
    try:
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


async def wait_gone(process: Process) -> None:
    """Wait until the process has ended; costs one descriptor and nothing else."""
    fd = open_pidfd(process)
    if fd is None:
        await trio.lowlevel.checkpoint()
        return
    try:
        await trio.lowlevel.wait_readable(fd)
    finally:
        trio.lowlevel.notify_closing(fd)
        os.close(fd)


def every_pid() -> Iterator[int]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            yield int(name)


def command_line(pid: int) -> list[str]:
    """Empty for kernel threads, zombies and processes that are gone."""
    data = b""
    with contextlib.suppress(OSError):
        data = Path(f"/proc/{pid}/cmdline").read_bytes()
    return [os.fsdecode(word) for word in data.removesuffix(b"\0").split(b"\0")] if data else []


def descendants(roots: Iterable[int]) -> set[int]:
    """Every process below ``roots``, from one reading of the whole process table."""
    children: dict[int, list[int]] = {}
    for pid in every_pid():
        if stat := read_stat(pid):
            children.setdefault(stat.parent, []).append(pid)
    found: set[int] = set()
    todo = list(roots)
    while todo:
        for pid in children.get(todo.pop(), ()):
            if pid not in found:
                found.add(pid)
                todo.append(pid)
    return found


def kill_all(pids: Iterable[int], killed: set[Process]) -> bool:
    """SIGKILL each process that is not in ``killed`` yet and add it there; True when there was one.

    Call it with fresh lists until it says False: a process that has been killed forks no more, so the rounds end.
    """
    new = False
    for pid in pids:
        process = identify(pid)
        if process is None or process in killed:
            continue
        killed.add(process)
        new = True
        with contextlib.suppress(OSError):
            send_signal(process, signal.SIGKILL)
    return new
