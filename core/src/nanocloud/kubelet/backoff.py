"""How long to wait before trying again: doubling from the first failure, forgotten after a good while."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

FIRST_SECONDS, LAST_SECONDS, GOOD_SECONDS = 1.0, 60.0, 600.0


@attrs.define
class Backoff:
    """The first failure is tried again at once, the next after 1, 2, 4, ... 60 s."""

    clock: Callable[[], float] = trio.current_time
    _failures: int = 0
    _began: float | None = None

    def begin(self) -> None:
        """What may fail begins now."""
        self._began = self.clock()

    def next(self) -> float:
        """It failed: seconds to wait."""
        if self._began is not None and self.clock() - self._began > GOOD_SECONDS:
            self._failures = 0
        self._failures += 1
        if self._failures == 1:
            return 0.0
        return float(min(FIRST_SECONDS * 2 ** (self._failures - 2), LAST_SECONDS))
