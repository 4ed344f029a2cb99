"""A trio run in which nothing is left to chance: the same seed takes the same tasks in the same order.

Trio shuffles each batch of runnable tasks, with a generator of its own; sorted before that and seeded, the order of a
run depends on nothing but the seed. Time is virtual and jumps when nobody can do anything. What remains is up to the
code that runs: no threads, no sockets, no iteration over sets of strings.
"""

from __future__ import annotations

import gc
from random import Random
from typing import TYPE_CHECKING, TypeVar

import trio
import trio._core._run as scheduler
from trio.testing import MockClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


def generator(seed: int, whom: str) -> Random:
    """A generator of one's own: what others draw does not change what this one gives."""
    return Random(f"{seed} {whom}")  # noqa: S311 - to be repeated is what it is for


def run_seeded(function: Callable[[], Awaitable[T]], seed: int) -> T:
    """``trio.run(function)``, repeatable. Not to be called where trio runs already."""
    generator = scheduler._r
    state, was_deterministic = generator.getstate(), scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    generator.seed(seed)
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    collects = gc.isenabled()
    gc.disable()  # an async generator that is collected is closed by a task, at a moment that nothing decides
    try:
        return trio.run(function, clock=MockClock(autojump_threshold=0))
    finally:
        if collects:
            gc.enable()
        generator.setstate(state)
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = was_deterministic  # type: ignore[misc]
