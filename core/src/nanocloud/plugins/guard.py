"""Runs a plugin's code in this process: bounded in time, its prints kept off standard output, its end one sentence.

A process that the code forks off does not go on with this process's work: it ends where the code ends.

The bound is an alarm signal whose handler raises in the main thread. It ends whatever returns to the interpreter now
and then: loops, sleeps, sockets, locks; and it unwinds, so that no import lock stays held, as it would by a thread that
is waited for and then left behind. It does not end native code that never returns; for imports see ``trial.py``.
Off the main thread no signal arrives, and there is no bound.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import TextIO

T = TypeVar("T")
_MOST_CHARACTERS = 500


class FaultError(Exception):
    """What a plugin's code did, as the rest of a sentence: ``raised ValueError: ...``, ``did not end within 10 s``."""


class _LateError(BaseException):
    """No Exception: code that catches those must not take the alarm for one of its own."""


def guarded(function: Callable[[], T], *, seconds: float) -> T:
    """Call ``function`` and return its answer.

    Raises:
        FaultError: it raised anything, forked, or did not end in time.
        KeyboardInterrupt: of the user, by SIGINT; one that the function raises by itself is a fault as any other.
    """
    try:
        with _streams_kept(), undivided(), _interrupts() as interrupted, _alarm(seconds):
            try:
                return function()
            except _LateError:
                raise
            except BaseException as exc:
                if isinstance(exc, KeyboardInterrupt) and interrupted():
                    raise
                raise FaultError(raised(exc)) from exc  # here, for the text is the plugin's code too
    except _LateError as exc:
        raise FaultError(overdue(seconds)) from exc


def overdue(seconds: float) -> str:
    return f"did not end within {seconds:g} s"


def raised(exc: BaseException) -> str:
    """An exception as the rest of one line. It is a plugin's: even asking for its text may fail."""
    try:
        text = " ".join(str(exc).split())
    except _LateError:
        raise
    except BaseException:
        text = "(its text cannot be made)"
    shown = text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."
    return f"raised {type(exc).__name__}: {shown}" if shown else f"raised {type(exc).__name__}"


class _Forks(threading.local):
    """How often this thread forked."""

    count = 0

    def add(self) -> None:
        self.count += 1


_forks = _Forks()
os.register_at_fork(after_in_parent=_forks.add)


@contextmanager
def undivided() -> Iterator[None]:
    """See that one process goes in and one comes out.

    Raises:
        FaultError: the body forked.
    """
    process, before = os.getpid(), _forks.count
    try:
        yield
    finally:
        if os.getpid() != process:
            os._exit(0)
    if _forks.count != before:
        raise FaultError("forked the process")


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Whether the user interrupted the body."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield lambda: False
        return
    arrived = False

    def ring(number: int, frame: FrameType | None) -> None:
        nonlocal arrived
        arrived = True
        handler(number, frame)

    signal.signal(signal.SIGINT, ring)
    try:
        yield lambda: arrived
    finally:
        signal.signal(signal.SIGINT, handler)


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    began, armed = time.monotonic(), True

    def ring(_number: int, _frame: FrameType | None) -> None:
        if armed:
            raise _LateError

    handler = signal.signal(signal.SIGALRM, ring)
    # Again and again: code that catches everything catches it once.
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:  # of whoever else waits for an alarm; one that is overdue rings at once
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), 1e-6), interval)


@contextmanager
def _streams_kept() -> Iterator[None]:
    """Prints go to standard error, for standard output may be JSON that a program reads. By descriptor, so native code
    and children are included. What the body closes or puts elsewhere is as before afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        os.fstat(2)
        sys.stdout.flush()
        output = os.dup(1)
    except (AttributeError, OSError, ValueError):  # closed: then nobody reads it
        yield
        return
    errors = os.dup(2)
    streams = sys.stdout, sys.stderr
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(errors, 2)
        sys.stdout, sys.stderr = streams  # first, for a wrapper that goes may close what it wraps
        sys.stdout, sys.stderr = _usable(sys.stdout, 1), _usable(sys.stderr, 2)
        os.dup2(output, 1)
        os.close(output)
        os.close(errors)


def _usable(stream: TextIO, descriptor: int) -> TextIO:
    """The stream, flushed; a new one if it was closed."""
    try:
        stream.flush()
    except (OSError, ValueError):
        if stream.closed:
            return open(descriptor, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
    return stream
