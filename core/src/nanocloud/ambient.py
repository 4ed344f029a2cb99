"""What code takes from its surroundings besides its arguments: the wall clock, random bits, and threads.

It asks here and not the operating system, so that a simulation can stand in for all three, and a run of the whole node
can be repeated exactly. Keys, nonces and passwords are no part of it: those are always the kernel's.
"""

from __future__ import annotations

import random
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Surroundings(NamedTuple):
    wall_clock: Callable[[], float] = time.time
    """Seconds since the epoch. It may be set back and forth while the node runs."""
    rng: random.Random = random.SystemRandom()
    """For what only has to differ: uids, suffixes of names, spread of delays."""
    threads: bool = True
    """False: what would go to a thread runs on the spot."""


_current: ContextVar[Surroundings] = ContextVar("surroundings", default=Surroundings())  # noqa: B039 - never altered


def surroundings() -> Surroundings:
    return _current.get()


def wall_clock() -> float:
    """Seconds since the epoch."""
    return _current.get().wall_clock()


@contextmanager
def living_in(other: Surroundings) -> Iterator[None]:
    """Let the body, and every task that is started in it, see these surroundings."""
    token = _current.set(other)
    try:
        yield
    finally:
        _current.reset(token)
