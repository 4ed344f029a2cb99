"""Runs a plugin's code in this process: bounded in time, its prints kept off standard output, its end one sentence.

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

T = TypeVar("T")
_MOST_CHARACTERS = 500


class FaultError(Exception):
    """What a plugin's code did, as the rest of a sentence: ``raised ValueError: ...``, ``did not end within 10 s``."""


class _LateError(BaseException):
    """No Exception: code that catches those must not take the alarm for one of its own."""


def guarded(function: Callable[[], T], *, seconds: float) -> T:
    """Call ``function`` and return its answer.

    Raises:
        FaultError: it raised anything but KeyboardInterrupt, which is the user's, or did not end in time.
    """
    try:
        with _prints_go_to_standard_error(), _alarm(seconds):
            return function()
    except KeyboardInterrupt:
        raise
    except _LateError as exc:
        raise FaultError(overdue(seconds)) from exc
    except BaseException as exc:
        raise FaultError(raised(exc)) from exc


def overdue(seconds: float) -> str:
    return f"did not end within {seconds:g} s"


def raised(exc: BaseException) -> str:
    """An exception as the rest of one line. It is a plugin's: even asking for its text may fail."""
    try:
        text = str(exc)
    except Exception:
        text = "(its text cannot be made)"
    text = " ".join(text.split())
    shown = text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."
    return f"raised {type(exc).__name__}: {shown}" if shown else f"raised {type(exc).__name__}"


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
def _prints_go_to_standard_error() -> Iterator[None]:
    """For standard output may be JSON that a program reads. By descriptor, so native code and children are included,
    and ``sys.stdout`` itself stays the same for those who remember it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        os.fstat(2)
        sys.stdout.flush()
        kept = os.dup(1)
    except (AttributeError, OSError, ValueError):  # closed: then nobody reads it
        yield
        return
    try:
        os.dup2(2, 1)
        yield
    finally:
        try:
            sys.stdout.flush()
        finally:
            os.dup2(kept, 1)
            os.close(kept)
