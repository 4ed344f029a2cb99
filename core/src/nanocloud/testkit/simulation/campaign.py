"""Many stories on all cores: those that broke a promise are named, with the command that shows them again."""

from __future__ import annotations

import logging
import signal
import sys
import time
import traceback
from multiprocessing import get_context

import attrs

from nanocloud.testkit.faults import CrashedError
from nanocloud.testkit.simulation.story import replay_command, tell

_CHUNK_SEEDS = 4
_SHOWN_PROMISES = 3


@attrs.frozen
class Verdict:
    """What is left of a story once it is told; small, for it goes from process to process."""

    seed: int
    broken: tuple[str, ...]
    writes: int
    seconds: float
    """Of virtual time."""


def tell_many(seeds: range, stop_after: int, jobs: int) -> int:
    """Tell them all, or until ``stop_after`` broke a promise; returns the exit status of the command."""
    began, done, failed = time.monotonic(), 0, list[Verdict]()
    writes, seconds = 0, 0.0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the pool ends with us
    with get_context("spawn").Pool(jobs, initializer=_quiet) as pool:
        for verdict in pool.imap_unordered(_verdict, seeds, chunksize=_CHUNK_SEEDS):
            done, writes, seconds = done + 1, writes + verdict.writes, seconds + verdict.seconds
            if verdict.broken:
                failed.append(verdict)
                _clear_line()
                print(_shown(verdict), flush=True)
            _progress(done, len(seeds), len(failed), began)
            if len(failed) >= stop_after:
                break
    _clear_line()
    spent = time.monotonic() - began
    told = f"{done} stories in {spent:.0f} s: {writes} writes, {seconds / 3600:.0f} hours of virtual time"
    print(f"{told}, {len(failed)} broken")
    return 1 if failed else 0


def _quiet() -> None:
    """For the processes that tell: faults are no news, and whoever presses Ctrl-C ends the one that started them."""
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _verdict(seed: int) -> Verdict:
    try:
        told = tell(seed)
    except (Exception, BaseExceptionGroup, CrashedError):
        # A story that does not come to its end is a broken one, and the others go on.
        return Verdict(seed, (f"the story broke off: {traceback.format_exc(limit=-4)}",), 0, 0.0)
    return Verdict(seed, tuple(f"{b.promise}: {b.how}" for b in told.broken), told.writes, told.seconds)


def _shown(verdict: Verdict) -> str:
    lines = [f"seed {verdict.seed} broke {len(verdict.broken)} promises; again: {replay_command(verdict.seed)}"]
    return "\n".join([*lines, *(f"    {text[:1000]}" for text in verdict.broken[:_SHOWN_PROMISES])])


def _progress(done: int, total: int, failed: int, began: float) -> None:
    if sys.stderr.isatty():
        rate = done / max(time.monotonic() - began, 0.001)
        line = f"\r{done} of {total} stories, {rate:.1f} a second, {failed} broken "
        print(line, end="", file=sys.stderr, flush=True)


def _clear_line() -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
