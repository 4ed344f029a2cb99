"""Rounds: every contender once a round, so that whatever else the machine does falls on all alike.

The order rotates from round to round: nobody always goes after the one who leaves the caches cold or the disk busy.
``BENCH_ROUNDS`` overrides the number of rounds that a measure asks for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")


def interleave(contenders: Mapping[str, Callable[[], T]], rounds: int, *, warm_up: int = 0) -> dict[str, list[T]]:
    """Call each contender ``rounds`` times and collect what it returns; ``warm_up`` rounds come before, uncounted."""
    names = list(contenders)
    samples: dict[str, list[T]] = {name: [] for name in names}
    for number in range(-warm_up, int(os.environ.get("BENCH_ROUNDS", rounds))):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            sample = contenders[name]()
            if number >= 0:
                samples[name].append(sample)
    return samples


def seconds_of(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def milliseconds_of(call: Callable[[], object]) -> float:
    return seconds_of(call) * 1000
