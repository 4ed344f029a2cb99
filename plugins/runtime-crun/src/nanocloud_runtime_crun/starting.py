"""Let a created container run, and see its ``execve`` succeed or fail.

``crun create`` leaves the first process waiting for one byte on the pipe ``exec.fifo`` in crun's state folder; ``crun
start`` does no more than write it (crun 1.8.1, src/libcrun/status.c), so it is written here and costs no process. What
happens then is told by nobody: the process installs its seccomp filter and calls ``execve``, and when that fails it
writes its reason to the log and ends with 1. So the waiting process is traced for this moment: the kernel stops it
when ``execve`` has succeeded, and we let it go again. When the server dies meanwhile, the kernel lets it go.

Where tracing is forbidden (yama's strictest setting) a start counts as done when the byte is written.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import signal
from typing import TYPE_CHECKING

from nanocloud_runtime_crun import _syscalls as sys
from nanocloud_runtime_crun.processes import identify

if TYPE_CHECKING:
    from pathlib import Path

    from nanocloud_runtime_crun.processes import Process

_WALL = 0x40000000  # waitpid(2): also for what we trace and is another's child
_GROUP_STOPS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


class Outcome(enum.Enum):
    EXECUTED = enum.auto()
    ENDED = enum.auto()
    """It ended before its program began."""


def start_pipe(crun_root: Path, container: str) -> Path:
    return crun_root / container / "exec.fifo"


def release(pipe: Path) -> bool:
    """Write the byte, then remove the pipe: in this order a crash between the two can be made good.

    False where nobody waits any more. Repeats safely.
    """
    try:
        fd = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        if exc.errno not in (errno.ENOENT, errno.ENXIO):
            raise
        with contextlib.suppress(FileNotFoundError):
            pipe.unlink()
        return False
    try:
        os.write(fd, b"\0")
    finally:
        os.close(fd)
    pipe.unlink(missing_ok=True)
    return True


def start(pipe: Path, init: Process) -> Outcome:
    """Release ``init`` and wait for what becomes of it; blocks for as long as its ``execve`` takes."""
    try:
        sys.ptrace(sys.PTRACE_SEIZE, init.pid, sys.PTRACE_O_TRACEEXEC)
    except ProcessLookupError:
        return Outcome.ENDED
    except PermissionError:
        return Outcome.EXECUTED if release(pipe) else Outcome.ENDED
    # The end of this thread lets go of what was traced by mistake: a process that has the number of a dead one.
    if identify(init.pid) != init or not release(pipe):
        return Outcome.ENDED
    return _follow(init.pid)


def _follow(pid: int) -> Outcome:
    while True:
        try:
            _, status = os.waitpid(pid, _WALL)
        except ChildProcessError:
            return Outcome.ENDED
        if not os.WIFSTOPPED(status):
            return Outcome.ENDED
        event, number = sys.stop_event(status), os.WSTOPSIG(status)
        if event == sys.PTRACE_EVENT_EXEC:
            _detach(pid)
            return Outcome.EXECUTED
        if event == sys.PTRACE_EVENT_STOP and number in _GROUP_STOPS:
            sys.ptrace(sys.PTRACE_LISTEN, pid)  # somebody stopped it: it stays stopped until SIGCONT
        else:
            with contextlib.suppress(ProcessLookupError):
                sys.ptrace(sys.PTRACE_CONT, pid, 0 if event else number)


def _detach(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        sys.ptrace(sys.PTRACE_DETACH, pid)
