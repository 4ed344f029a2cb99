"""The address of a service: its own as long as it is installed, whether it runs or not, and nobody's afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nanocloud.errors import ProviderError

if TYPE_CHECKING:
    from trio.testing import MockClock

    from nanocloud.testkit.simulation import Server, Simulation


async def stopped(server: Server) -> None:
    await server.install("mariadb")
    await server.ready("mariadb")
    await server.change("mariadb", start=False)
    await server.reason("mariadb", "Stopped")


async def test_a_stopped_service_keeps_its_address_and_gives_it_back_when_it_is_uninstalled(
    machine: Simulation, mock_clock: MockClock
) -> None:
    async with machine.run() as server:
        await stopped(server)
        assert list(machine.network.reserved) == ["default/mariadb-0"]
        await server.uninstall("mariadb")
        await server.gone("mariadb")
        assert not machine.network.reserved


async def test_a_service_is_not_gone_before_its_address_is_given_back(
    machine: Simulation, mock_clock: MockClock
) -> None:
    async with machine.run() as server:
        await stopped(server)
        machine.network.calls.fail("release", ProviderError("the bridge is busy"), times=10_000)
        await server.uninstall("mariadb")
        await server.pass_time(600)
        bundle = await server.bundle("mariadb")
        assert bundle is not None
        assert bundle["metadata"]["finalizers"] == ["nanocloud.io/address"]
    machine.network.calls.forgive("release")
    async with machine.run() as server:
        await server.gone("mariadb")
        assert not machine.network.reserved
