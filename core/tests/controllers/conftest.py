from __future__ import annotations

from pathlib import Path

import pytest

from nanocloud.testkit.simulation import Simulation


@pytest.fixture
def machine(tmp_path: Path) -> Simulation:
    return Simulation(tmp_path)
