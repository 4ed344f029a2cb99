from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from nanocloud.testkit.simulation import Simulation

SURPRISES = {"pod worker failed", "worker crashed"}


@pytest.fixture
def machine(tmp_path: Path) -> Simulation:
    return Simulation(tmp_path)


@pytest.fixture
def no_surprises() -> Iterator[None]:
    """Failures are foreseen: no worker may crash over one, and no pod may need its last resort."""
    with capture_logs() as logs:
        yield
    assert [entry for entry in logs if entry["event"] in SURPRISES] == []
