"""Tries in a child process what might not come back, before it is done in this one.

An import runs native code, and native code can do what no guard in this process survives: crash, end the process, hold
the interpreter's lock for ever; and so can the first call of a hook. So both happen in a forked child first. The child
has all of core already, so that costs the fork and the plugins' own modules, a few hundredths of a second, and it dies
with whatever it did. This process waits with a deadline for each import and hook and learns by name which one failed.

What is not covered: what goes well in the child and badly here, and native code that runs later.

The child shares this process's threads' locks but not the threads: fork before threads are started.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import resource
import select
import signal
import time
import warnings
from functools import partial
from typing import TYPE_CHECKING, Self

from nanocloud.plugins.guard import FaultError, overdue, raised

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.metadata import EntryPoint
    from types import TracebackType
    from typing import Any, NoReturn

    Report = Callable[[dict[str, Any]], None]
    Work = Callable[[EntryPoint, Callable[[str], None]], None]


_MOST_BYTES = 1 << 20
_MOST_STEPS = 16
_NO_REPORT = "wrote into files that are not its own"


def faults(entries: Sequence[EntryPoint], work: Work, *, seconds: float) -> dict[str, str]:
    """Names of the entry points with which ``work`` goes wrong, each with what was done then and what came of it.

    ``work`` says what it is about to do; ``seconds`` bounds each of that. One child tries all entry points; after one
    that took the child down a new child goes on with the rest.
    """
    found: dict[str, str] = {}
    left = list(entries)
    while left:
        with Child(partial(_each, tuple(left), work), seconds=seconds * len(left) * _MOST_STEPS) as child:
            alive = True
            while left and alive:
                fault, alive = _outcome(child, seconds)
                entry = left.pop(0)
                if fault:
                    found[entry.name] = fault
    return found


def _outcome(child: Child, seconds: float) -> tuple[str, bool]:
    """What went wrong with the next entry point, empty if nothing did, and whether the child is of use still."""
    doing = ""
    while True:
        answer, end = child.answer(seconds)
        if answer is None:
            return f"{doing} {end}", False
        if "fault" in answer:
            return f"{doing} {answer['fault']}" if answer["fault"] else "", True
        doing = str(answer.get("doing", doing))


def _each(entries: Sequence[EntryPoint], work: Work, report: Report) -> None:
    for entry in entries:
        fault = ""
        try:
            work(entry, lambda doing: report({"doing": doing}))
        except FaultError as exc:
            fault = str(exc)
        except BaseException as exc:  # even KeyboardInterrupt: the keyboard does not reach the child
            fault = raised(exc)
        report({"fault": fault})


class Child:
    """A forked process that runs ``work`` and reports as it goes; leaving kills it with all that it started."""

    def __init__(self, work: Callable[[Report], None], *, seconds: float) -> None:
        self._reading, writing = os.pipe()
        self._rest = b""
        with warnings.catch_warnings():
            # From Python 3.12 on a fork beside threads warns. Here the child only imports and is killed in time.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if not self._pid:
            _run(work, writing, seconds)
        os.close(writing)

    def answer(self, seconds: float) -> tuple[Any, str]:
        """The next report, or None and what the child did instead, as the rest of a sentence."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._reading, select.POLLIN)
        while b"\n" not in self._rest:
            if not poll.poll(max(0, deadline - time.monotonic()) * 1000):
                return None, overdue(seconds)
            if not (read := os.read(self._reading, 65536)):
                return None, self._end(deadline - time.monotonic()) or overdue(seconds)
            self._rest += read
            if len(self._rest) > _MOST_BYTES:
                return None, _NO_REPORT
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        return (answer, "") if isinstance(answer, dict) else (None, _NO_REPORT)

    def _end(self, seconds: float) -> str:
        """How the child ended; empty if it did not, though it closed its end of the pipe."""
        poll = select.poll()
        ended = os.pidfd_open(self._pid)
        poll.register(ended, select.POLLIN)
        poll.poll(max(0, seconds) * 1000)
        os.close(ended)
        # WNOWAIT leaves the process to __exit__: until it is waited for, its number is nobody else's.
        end = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if end is None:
            return ""
        if end.si_code == os.CLD_EXITED:
            return f"ended the process with status {end.si_status}"
        names = {number.value: number.name for number in signal.Signals}  # those between the real-time ones have none
        return f"ended the process by {names.get(end.si_status, f'signal {end.si_status}')}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for kill in (os.killpg, os.kill):  # it may not have become a group of its own yet
            try:
                kill(self._pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        os.waitpid(self._pid, 0)
        os.close(self._reading)


def _run(work: Callable[[Report], None], writing: int, seconds: float) -> NoReturn:
    """The child's whole life."""
    try:
        os.setsid()  # the keyboard is for the parent, and what the child starts dies with it
        gc.disable()  # the parent's garbage is the parent's to finalize
        faulthandler.disable()  # a crash is an answer here
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds + 1)  # for when the parent is killed
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)

        def report(answer: dict[str, Any]) -> None:
            os.write(writing, json.dumps(answer).encode() + b"\n")

        work(report)
    finally:
        os._exit(0)
