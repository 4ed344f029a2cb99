"""What one more service costs, counted: the same, however many there are.

Tasks run in any order, so a bundle may be looked at once more or less; what grows would be ten times as much.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from nanocloud.testkit.storage import FakeStorage

if TYPE_CHECKING:
    from trio.testing import MockClock

    from nanocloud.providers.storage import ChangePage, Record, RecordPage
    from nanocloud.testkit.disk import FakeDisk
    from nanocloud.testkit.simulation import Server, Simulation

FEW, MANY = 3, 30


class CountingStorage(FakeStorage):
    """Counts the records that are read."""

    def __init__(self, read: Counter[str], disk: FakeDisk) -> None:
        super().__init__(disk)
        self._read = read

    async def get(self, key: bytes, *, revision: int | None = None) -> Record | None:
        self._read["get"] += 1
        return await super().get(key, revision=revision)

    async def range(
        self, start: bytes, end: bytes | None, *, limit: int | None = None, revision: int | None = None
    ) -> RecordPage:
        page = await super().range(start, end, limit=limit, revision=revision)
        self._read["range"] += len(page.records)
        return page

    async def changes(self, start: bytes, end: bytes | None, *, after: int, limit: int) -> ChangePage:
        page = await super().changes(start, end, after=after, limit=limit)
        self._read["changes"] += len(page.changes)
        return page


class Costs:
    """Records read and calls of providers, by what was done when there were ``FEW`` services, and ``MANY``."""

    def __init__(self, machine: Simulation) -> None:
        self.machine = machine
        self.read: Counter[str] = Counter()
        machine.providers.storage = partial(CountingStorage, self.read, machine.disk)

    def take(self) -> Counter[str]:
        """What it cost since the last time."""
        cost = Counter(self.read)
        for fake in (self.machine.runtime, self.machine.volume, self.machine.network):
            cost.update(f"{type(fake).__name__}.{method}" for method, _ in fake.calls.log if method != "exec")
            fake.calls.log.clear()
        self.read.clear()
        return cost


async def test_installing_and_removing_one_more_costs_the_same(machine: Simulation, mock_clock: MockClock) -> None:
    costs = Costs(machine)
    installed, removed = [], []
    async with machine.run() as server:
        await server.install("mariadb")  # the first has the indexes made
        await server.ready("mariadb")
        await server.uninstall("mariadb")
        await server.gone("mariadb")
        for wanted in (FEW, MANY):
            await with_databases(server, wanted)
            costs.take()
            await server.install("mariadb", name=f"one-{wanted}")
            await server.ready(f"one-{wanted}")
            installed.append(costs.take())
            await server.uninstall(f"one-{wanted}")
            await server.gone(f"one-{wanted}")
            removed.append(costs.take())
    assert grown(*installed) == {}
    assert grown(*removed) == {}


async def test_using_a_service_costs_the_same_however_many_use_it(machine: Simulation, mock_clock: MockClock) -> None:
    costs = Costs(machine)
    used = []
    async with machine.run() as server:
        await with_databases(server, 1)
        for wanted in (FEW, MANY):
            for number in range(wanted):
                await use(server, f"app-{number}")
            costs.take()
            await use(server, f"one-{wanted}")
            used.append(costs.take())
    assert grown(*used) == {}


async def test_a_server_that_starts_asks_each_provider_once_what_is_there(
    machine: Simulation, mock_clock: MockClock
) -> None:
    async with machine.run() as server:
        await with_databases(server, MANY)
    costs = Costs(machine)
    costs.take()
    async with machine.run() as server:
        await server.ready(*(f"db-{number}" for number in range(MANY)))
        await server.settle()
    cost = costs.take()
    assert (cost["FakeRuntime.list"], cost["FakeVolume.list"], cost["FakeNetwork.set_names"]) == (1, 1, 1)


def grown(before: Counter[str], after: Counter[str]) -> dict[str, tuple[int, int]]:
    """What costs more than before."""
    return {what: (before[what], cost) for what, cost in after.items() if cost > 1.5 * before[what] + 8}


async def with_databases(server: Server, count: int) -> None:
    for number in range(count):
        if await server.bundle(f"db-{number}") is None:
            await server.install("mariadb", name=f"db-{number}")
            await server.ready(f"db-{number}")
    await server.settle()


async def use(server: Server, name: str) -> None:
    """Have an application whose database is one that others use as well."""
    if await server.bundle(name) is None:
        mine = name.replace("-", "_")
        await server.install("wordpress", name=name, database_name=mine, database_user=mine, port_1="80")
        await server.ready(name)
    await server.settle()
