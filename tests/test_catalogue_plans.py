"""Every service of the catalogue in the control plane, on fakes: plans come to rest, and stay so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from trio.testing import MockClock

from nanocloud.controllers.planner import Planner
from nanocloud.images import ImageSources
from nanocloud.macros import BuiltinMacros
from nanocloud.planning import describe_image, diff, expander
from nanocloud.testkit.simulation import Server, Simulation
from nanocloud_dockyard import recipes

SERVICES = recipes.services()


def machine_of(folder: Path) -> Simulation:
    """A machine whose catalogue is the real one."""
    machine = Simulation(folder)
    for name in SERVICES:
        labels = recipes.load(name).labels
        machine.add_image(
            name,
            json.loads(labels["io.nanocloud.options"]),
            exports=json.loads(labels["io.nanocloud.exports"]),
        )
    return machine


def planner_of(machine: Simulation, server: Server) -> Planner:
    macros = BuiltinMacros(local_address=lambda: "192.0.2.7")
    images = ImageSources([machine.images])
    return Planner(store=server.store, profiles=server.profiles, images=images, expand=expander([macros]))


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_is_installed_once_and_then_nothing_is_left_to_do(
    service: str, tmp_path: Path, mock_clock: MockClock
) -> None:
    machine = machine_of(tmp_path)
    missing = describe_image(recipes.load(service).labels)["schema"].get("required", [])
    async with machine.run() as server:
        await server.install(service, **dict.fromkeys(missing, "80"))
        await server.ready(service)
        stored, pod = await server.bundle(service), await server.pod(service)
        assert stored is not None
        assert pod is not None
        first = (await planner_of(machine, server).plan(stored)).plan
        assert first.pending_bindings == ()
    async with machine.run() as server:
        await server.ready(service)
        again = (await planner_of(machine, server).plan(stored)).plan
        assert diff(first, again).text() == "no changes"
        after = await server.pod(service)
        assert after is not None
        assert after["metadata"]["uid"] == pod["metadata"]["uid"]
