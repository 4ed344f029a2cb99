"""Random stories of the whole control plane keep every promise, and a seed tells the same story everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING

import pytest

from nanocloud.testkit.simulation import replay_command, tell

if TYPE_CHECKING:
    from nanocloud.testkit.simulation import Told

SEEDS = int(os.environ.get("NANOCLOUD_TEST_SEEDS", "200"))
CHUNK = 20
DIGESTS = """
import sys
from nanocloud.testkit.simulation import tell
for seed in map(int, sys.argv[1:]):
    print(seed, tell(seed).trace.digest)
"""


@cache
def story(seed: int) -> Told:
    return tell(seed)


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_every_promise_is_kept(first: int) -> None:
    broken = {seed: told.broken for seed in range(first, min(first + CHUNK, SEEDS)) if (told := story(seed)).broken}
    lines = [f"{replay_command(seed)}: {b.promise}: {b.how}" for seed, found in broken.items() for b in found[:3]]
    assert not broken, "\n".join(["", *lines])


def test_a_seed_tells_the_same_story_in_every_process() -> None:
    seeds = [str(seed) for seed in range(5)]
    told = [
        subprocess.run(
            [sys.executable, "-c", DIGESTS, *seeds],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert told[0] == told[1]
    here = [f"{seed} {tell(int(seed)).trace.digest}" for seed in seeds]
    assert told[0].splitlines() == here
    assert len({line.split()[1] for line in here}) == len(seeds), "other seeds tell other stories"


def test_the_traces_tell_of_everything_that_can_go_wrong() -> None:
    """A promise is kept cheaply where nothing happens."""
    traces = "\n".join(line for seed in range(20) for line in story(seed).trace.lines)
    for word in (
        "install",
        "uninstall",
        "meddler: delete pod",
        "a storm begins",
        "it fails",
        "its answer is lost",
        "s late",
        " is down",
        "the server dies at step",
        "ends by itself",
        "the machine reboots",
        "the clock is set",
        "storage compact",
        "a binding command will be killed",
        "revoke",
    ):
        assert word in traces, word
