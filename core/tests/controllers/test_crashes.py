"""The server dies and comes back: at every step of an installation and of a removal, and while all is well."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from nanocloud.errors import ProviderError
from nanocloud.models.binding import BINDING
from nanocloud.models.bundle import BUNDLE
from nanocloud.models.core import EVENT, PERSISTENT_VOLUME_CLAIM, SECRET
from nanocloud.models.pod import POD
from nanocloud.providers.binding import BindingResult
from nanocloud.testkit import FakeProgram
from nanocloud.testkit.simulation import Simulation
from nanocloud.testkit.specs import container_spec, sandbox_spec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from trio.testing import MockClock

    from nanocloud.testkit import FakeExec
    from nanocloud.testkit.simulation import Server

# Every step takes half a minute: ask for it by NANOCLOUD_TEST_EVERY=1. Otherwise one step in so many is tried.
STRIDE = int(os.environ.get("NANOCLOUD_TEST_EVERY", "4"))


async def live(machine: Simulation, *, crash_at: int | None, body: Callable[[Server], Awaitable[None]]) -> int:
    """One life of the server; returns how many steps it took."""
    machine.faults.crash_at = crash_at
    async with machine.run() as server:
        await body(server)
    return machine.faults.taken


async def install(server: Server) -> None:
    if await server.bundle("wordpress") is None:
        await server.install("wordpress")
    await server.ready("wordpress", "mariadb")
    await server.settle()


async def check_installed(machine: Simulation, server: Server) -> None:
    """Everything is there once, and nothing else."""
    await install(server)
    uids = {pod["metadata"]["uid"].replace("-", "") for pod in (await server.store.list(POD)).items}
    assert len(uids) == 2
    assert len(machine.runtime.containers) == len(machine.runtime.running) == 2
    assert {container.partition(".")[0] for container in machine.runtime.containers} == uids
    assert set(machine.network._attached) == uids
    volumes = {status.id: status.consumers for status in await machine.volume.list()}
    assert sorted(volumes) == ["default.volume-1-mariadb-0", "default.volume-1-wordpress-0"]
    assert {consumer for consumers in volumes.values() for consumer in consumers} == uids
    assert await server.names(PERSISTENT_VOLUME_CLAIM) == ["volume-1-mariadb-0", "volume-1-wordpress-0"]
    assert await server.names(SECRET) == ["mariadb-options", "wordpress-options"]
    assert len(await server.names(BINDING)) == 1
    profile = await server.profiles.get("default", "wordpress")
    assert profile is not None
    assert [(r.command, r.result) for r in profile.bindings.values()] == [("create_user", BindingResult.COMPLETED)]
    # What was bound is what the service uses, whichever life decided it.
    password = profile.options["database_password"].value
    assert machine.fake_binding.runs[-1].arguments[2].value == password
    (wordpress,) = [c for c in machine.runtime.containers.values() if c.spec.hostname == "wordpress"]
    assert wordpress.spec.environment["DB_PASSWORD"] == password
    (mariadb,) = [c for c in machine.runtime.containers.values() if c.spec.hostname == "mariadb"]
    mariadb_profile = await server.profiles.get("default", "mariadb")
    assert mariadb_profile is not None
    assert mariadb.spec.environment["MARIADB_ROOT_PASSWORD"] == mariadb_profile.options["root_password"].value
    assert set(machine.network.names) >= {"mariadb.default.svc", "wordpress.default.svc"}


async def check_removed(machine: Simulation, server: Server) -> None:
    for name in await server.names(BUNDLE):
        if not (await server.bundle(name) or {})["metadata"].get("deletionTimestamp"):
            await server.uninstall(name)
    await server.gone("wordpress", "mariadb")
    await server.settle()
    for kind in (BUNDLE, POD, BINDING, SECRET, PERSISTENT_VOLUME_CLAIM):
        assert await server.names(kind) == []
    assert machine.runtime.containers == {}
    assert machine.network._attached == {}
    assert machine.network._reserved == {}
    assert machine.volume._volumes == {}
    assert (await server.store.keyspace.list(("profiles",))).entries == ()
    assert not list((machine.folder / "logs").glob("pods/*"))


def lives(folder: Path) -> Simulation:
    folder.mkdir()
    return Simulation(folder)


async def test_an_installation_survives_a_crash_at_any_step(tmp_path: Path, mock_clock: MockClock) -> None:
    for number in itertools.count(1, STRIDE):
        machine = lives(tmp_path / str(number))
        with capture_logs() as logs:
            if await live(machine, crash_at=number, body=install) < number:
                assert number > 80, "it came to the end without that many steps"
                break
            where = machine.faults.last
            machine.faults.crash_at = None
            async with machine.run() as server:
                try:
                    await check_installed(machine, server)
                    await check_removed(machine, server)
                except AssertionError as exc:
                    raise AssertionError(f"after a crash at step {number}, {where}: {exc}") from exc
        assert [e for e in logs if e["log_level"] == "error"] == [], f"after a crash at step {number}, {where}"


async def test_a_removal_survives_a_crash_at_any_step(tmp_path: Path, mock_clock: MockClock) -> None:
    async def remove(server: Server) -> None:
        await server.uninstall("wordpress")
        await server.gone("wordpress", "mariadb")

    for number in itertools.count(3, STRIDE):
        machine = lives(tmp_path / str(number))
        await live(machine, crash_at=None, body=install)
        if await live(machine, crash_at=number, body=remove) < number:
            assert number > 40, "it came to the end without that many steps"
            break
        where = machine.faults.last
        machine.faults.crash_at = None
        async with machine.run() as server:
            try:
                await check_removed(machine, server)
            except AssertionError as exc:
                raise AssertionError(f"after a crash at step {number}, {where}: {exc}") from exc


async def test_a_server_that_crashes_again_and_again_gets_there(tmp_path: Path, mock_clock: MockClock) -> None:
    machine = lives(tmp_path / "machine")
    for _ in range(40):
        await live(machine, crash_at=23, body=install)
    machine.faults.crash_at = None
    async with machine.run() as server:
        await check_installed(machine, server)


async def test_containers_outlive_the_server_and_are_adopted(tmp_path: Path, mock_clock: MockClock) -> None:
    machine = lives(tmp_path / "machine")
    await live(machine, crash_at=None, body=install)
    running = dict(machine.runtime.containers)
    names = dict(machine.network.names)
    assert len(machine.runtime.running) == 2
    async with machine.run() as server:
        events = {event["metadata"]["name"]: event["count"] for event in (await server.store.list(EVENT)).items}
        await server.pass_time(600)
        await check_installed(machine, server)
        assert machine.runtime.containers == running
        assert machine.network.names == names
        for bundle in ("wordpress", "mariadb"):
            status = await server.container(bundle)
            assert (status["restartCount"], status["ready"]) == (0, True)
        after = {event["metadata"]["name"]: event["count"] for event in (await server.store.list(EVENT)).items}
        assert after == events, "nothing happened, so nothing is told"
    assert len(machine.fake_binding.runs) == 1


async def test_a_container_that_ended_without_the_server_is_seen_and_started_again(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    machine = lives(tmp_path / "machine")
    await live(machine, crash_at=None, body=install)
    (mariadb,) = [c for c in machine.runtime.containers.values() if c.spec.hostname == "mariadb"]
    machine.runtime.exit(mariadb.spec.id, 9)
    async with machine.run() as server:

        async def back() -> bool:
            status = await server.container("mariadb")
            return bool(status["ready"]) and status["restartCount"] == 1

        await server.until(back)
        status = await server.container("mariadb")
        assert status["lastState"]["terminated"]["exitCode"] == 9
        await check_installed(machine, server)
    async with machine.run() as server:
        await server.pass_time(60)
        assert (await server.container("mariadb"))["lastState"] == status["lastState"]


async def test_a_reboot_starts_everything_again_on_the_same_data(tmp_path: Path, mock_clock: MockClock) -> None:
    machine = lives(tmp_path / "machine")
    await live(machine, crash_at=None, body=install)
    machine.runtime.containers.clear()
    machine.network._attached.clear()
    machine.volume.reboot()
    async with machine.run() as server:

        async def back() -> bool:
            found = [await server.container(bundle) for bundle in ("wordpress", "mariadb")]
            return all(status["ready"] and status["restartCount"] == 1 for status in found)

        await server.until(back)
        await check_installed(machine, server)
    assert len(machine.fake_binding.runs) == 1


async def test_what_belongs_to_no_pod_is_collected_when_the_server_starts(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    machine = lives(tmp_path / "machine")
    await live(machine, crash_at=None, body=install)
    log = tmp_path / "machine" / "logs" / "pods" / "default_gone-0_nobody" / "x" / "0.log"
    stray = container_spec("stray", tmp_path, labels={"nanocloud.io/pod-uid": "nobody"}, log_path=log)
    await machine.runtime.create(stray)
    await machine.runtime.start(stray.id)
    await machine.network.attach(sandbox_spec("nobody", owner="default/gone-0"))
    (volume, *_) = await machine.volume.list()
    await machine.volume.publish(volume.id, consumer="nobody")
    machine.runtime.calls.fail("remove", ProviderError("busy"))
    async with machine.run() as server:
        await server.settle()
        assert stray.id in machine.runtime.containers, "it could not be removed, and the others run all the same"
    async with machine.run() as server:
        await server.settle()
        await check_installed(machine, server)
        assert not stray.log_path.exists()


async def test_a_crash_loop_goes_on_where_it_was(tmp_path: Path, mock_clock: MockClock) -> None:
    machine = lives(tmp_path / "machine")
    machine.runtime.program = lambda _: FakeProgram(exit_after_seconds=1, exit_code=3)

    async def not_ready(_: FakeExec) -> int:
        return 1

    machine.runtime.exec_handler = not_ready

    async def until_failed(server: Server) -> None:
        if await server.bundle("mariadb") is None:
            await server.install("mariadb")
        await server.reason("mariadb", "CrashLoopBackOff")

    await live(machine, crash_at=None, body=until_failed)
    async with machine.run() as server:
        await server.settle()
        status = await server.status("mariadb")
        assert (status["phase"], status["reason"]) == ("Failed", "CrashLoopBackOff")
        before = (await server.container("mariadb"))["restartCount"]
        await server.pass_time(120)
        assert (await server.container("mariadb"))["restartCount"] > before


async def test_a_pod_that_was_to_stop_when_the_server_died_is_taken_down(tmp_path: Path, mock_clock: MockClock) -> None:
    machine = lives(tmp_path / "machine")
    machine.runtime.program = lambda _: FakeProgram(stop_exit_code=None)
    await live(machine, crash_at=None, body=install)

    async def stop(server: Server) -> None:
        await server.change("wordpress", start=False)
        await server.pass_time(10)
        assert len(machine.runtime.running) == 2

    await live(machine, crash_at=None, body=stop)
    async with machine.run() as server:
        await server.reason("wordpress", "Stopped")
        assert len(machine.runtime.containers) == 1
        assert len(machine.network._attached) == 1


@pytest.mark.parametrize("life", [1, 2, 3])
async def test_an_interrupted_binding_is_run_again_and_does_not_count(
    tmp_path: Path, mock_clock: MockClock, life: int
) -> None:
    machine = lives(tmp_path / "machine")
    machine.fake_binding.calls.delay("run", 30)

    async def interrupted(server: Server) -> None:
        if await server.bundle("wordpress") is None:
            await server.install("wordpress")
        before = len(machine.fake_binding.calls.log)

        async def begun() -> bool:
            return len(machine.fake_binding.calls.log) > before

        await server.until(begun)

    for _ in range(2 * life):
        await live(machine, crash_at=None, body=interrupted)
    async with machine.run() as server:
        await check_installed(machine, server)
        (binding,) = (await server.status("wordpress"))["bindings"]
        assert binding["attempts"] == 1
