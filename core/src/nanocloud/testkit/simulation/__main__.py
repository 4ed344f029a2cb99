"""``python -m nanocloud.testkit.simulation``: random stories of the whole control plane, one a seed.

--seed 4711       tell one, with its trace
--seeds 10000     tell many, on all cores, and name those that broke a promise; --first is where they begin
--stop-after 10   so many broken ones are enough
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from functools import partial

from nanocloud.testkit.simulation.campaign import tell_many
from nanocloud.testkit.simulation.story import tell


def main() -> int:
    arguments = _arguments()
    logging.disable(logging.CRITICAL)  # faults are what it is about
    if arguments.seed is not None:
        return _tell_one(arguments.seed)
    return tell_many(range(arguments.first, arguments.first + arguments.seeds), arguments.stop_after, arguments.jobs)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m nanocloud.testkit.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="tell the story of this seed and print its trace")
    parser.add_argument("--seeds", type=int, default=1000, help="how many stories to tell")
    parser.add_argument("--first", type=int, default=0, help="the first seed of many")
    parser.add_argument("--stop-after", type=int, default=10, help="stop after so many stories that broke a promise")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes to use")
    return parser.parse_args()


def _tell_one(seed: int) -> int:
    told = tell(seed, echo=partial(print, flush=True))
    print(f"\nseed {seed}: {told.writes} writes, {told.events} watch events, trace {told.trace.digest}")
    for broken in told.broken:
        print(f"BROKEN {broken.promise}: {broken.how}")
    return 1 if told.broken else 0


if __name__ == "__main__":
    sys.exit(main())
