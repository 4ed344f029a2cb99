"""``kill -9`` in the middle of a volume's life: the next start heals, data that was written stays, nothing leaks."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

STEP = 41
"""Every 41st line, from a random one on: each run takes other lines. ``crash_worker.py ROOT 1 1`` takes them all."""


@pytest.mark.root
def test_killed_after_any_line_heals(root: Path) -> None:
    first = random.randint(1, STEP)
    argv = [sys.executable, str(Path(__file__).with_name("crash_worker.py")), str(root), str(first), str(STEP)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}\n{done.stdout}{done.stderr}"
    assert int(done.stdout.split()[-2]) > 20
