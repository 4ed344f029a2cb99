"""What every fake does at the start of a method: remember the call, take its time, and fail where it was told to."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from typing import Final

import trio

EPOCH = 1_700_000_000.0
"""The fakes' clock shows this when trio's shows 0: with a MockClock, times are the same in every run."""


def now() -> float:
    """Seconds since the epoch, of the virtual clock where there is one."""
    return EPOCH + trio.current_time()


class Calls:
    """The calls of one fake: ``log`` says what came, ``fail`` and ``delay`` say what shall happen."""

    def __init__(self) -> None:
        self.log: Final[list[tuple[str, str]]] = []
        """Method and object, in order: ``("create", "web-0")``."""
        self._errors: Final[defaultdict[str, deque[Exception]]] = defaultdict(deque)
        self._delays: Final[dict[str, float]] = {}
        self.gate: Callable[[], None] | None = None
        """Asked before a call has its effect; what it raises keeps the call from having any."""

    def fail(self, method: str, error: Exception, *, times: int = 1) -> None:
        """The next calls of ``method`` raise ``error`` and change nothing."""
        self._errors[method].extend([error] * times)

    def forgive(self, method: str) -> None:
        """What ``fail`` has left for ``method`` does not come any more."""
        self._errors.pop(method, None)

    def delay(self, method: str, seconds: float) -> None:
        """Every call of ``method`` takes that long from now on."""
        self._delays[method] = seconds

    def of(self, method: str) -> list[str]:
        """The objects that ``method`` was called for, in order."""
        return [subject for called, subject in self.log if called == method]

    async def enter(self, method: str, subject: str) -> None:
        """First line of a fake's method. What follows runs without an await, so it happens whole or not at all."""
        self.log.append((method, subject))
        await trio.sleep(self._delays.get(method, 0))
        if errors := self._errors[method]:
            raise errors.popleft()
        if self.gate is not None:
            self.gate()
