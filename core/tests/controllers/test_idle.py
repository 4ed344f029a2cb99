"""What the control plane does while nobody asks for anything, counted: next to nothing."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from trio.testing import MockClock

    from nanocloud.testkit.simulation import Simulation

HOUR = 3600.0


class Runs(trio.abc.Instrument):
    """Counts how often tasks run, by name, besides those of the test."""

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()
        self._mine = trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is not self._mine:
            self.of[task.name] += 1


async def test_without_services_no_task_ever_runs(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        await server.pass_time(2 * HOUR)  # what starting has left to do
        runs = Runs()
        trio.lowlevel.add_instrument(runs)
        mock_clock.jump(24 * HOUR)
        await server.settle()
        trio.lowlevel.remove_instrument(runs)
    assert runs.of == Counter()


async def test_services_that_run_are_only_asked_whether_they_are_ready_and_that_rarely(
    machine: Simulation, mock_clock: MockClock
) -> None:
    async with machine.run() as server:
        await server.install("wordpress")
        await server.ready("wordpress", "mariadb")
        await server.pass_time(2 * HOUR)  # the events of the installation go after an hour
        revision = server.store.revision
        fakes = (machine.runtime, machine.network, machine.volume, machine.images, machine.fake_binding)
        for fake in fakes:
            fake.calls.log.clear()
        await server.pass_time(HOUR)
        calls = Counter(method for fake in fakes for method, _ in fake.calls.log)
        assert server.store.revision == revision, "nothing is written"
    assert set(calls) == {"exec"}
    assert calls["exec"] <= 2 * (HOUR / 300 + 1)
