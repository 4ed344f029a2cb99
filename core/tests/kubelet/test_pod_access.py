"""Logs and exec of pods, as the API server asks for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from nanocloud.bindings import ENVIRONMENT, BindingConfig, ExecBinding
from nanocloud.errors import BadRequestError, NotFoundError
from nanocloud.kubelet.access import PodAccess
from nanocloud.models.pod import POD
from nanocloud.providers.runtime import ContainerId, ExecSpec
from nanocloud.testkit import FakeExec, FakeProgram
from nanocloud.testkit.simulation import Server, Simulation

LINES = FakeProgram(output=(("stdout", "starting"), ("stderr", "ready")))


@pytest.fixture
def machine(tmp_path: Path) -> Simulation:
    machine = Simulation(tmp_path)
    machine.runtime.program = lambda _: LINES
    return machine


@pytest.fixture
async def server(machine: Simulation, mock_clock: MockClock) -> AsyncIterator[Server]:
    async with machine.run() as server:
        await server.install("mariadb")
        await server.ready("mariadb")
        yield server


async def logs(server: Server, **options: Any) -> str:
    pieces = []
    async with PodAccess(server.kubelet).read_logs("default", "mariadb-0", None, **options) as text:
        async for piece in text:
            pieces.append(piece)
    return b"".join(pieces).decode()


async def current(server: Server) -> ContainerId:
    text: str = (await server.container("mariadb"))["containerID"]
    return ContainerId(text.removeprefix("nanocloud://"))


async def test_the_log_of_the_running_container(server: Server, mock_clock: MockClock) -> None:
    assert await logs(server) == "starting\nready\n"
    assert await logs(server, tail_lines=1) == "ready\n"
    with pytest.raises(BadRequestError, match='previous terminated container "mariadb" in pod "mariadb-0" not found'):
        await logs(server, previous=True)


async def test_the_log_of_the_run_before(machine: Simulation, server: Server, mock_clock: MockClock) -> None:
    machine.runtime.program = lambda _: FakeProgram(output=(("stdout", "second"),))
    machine.runtime.exit(await current(server), 3)

    async def back() -> bool:
        status = await server.container("mariadb")
        return bool(status["ready"]) and status["restartCount"] == 1

    await server.until(back)
    assert await logs(server) == "second\n"
    assert await logs(server, previous=True) == "starting\nready\n"


async def test_following_ends_with_the_container(machine: Simulation, server: Server, mock_clock: MockClock) -> None:
    container = await current(server)
    got: list[str] = []

    async def follow() -> None:
        got.append(await logs(server, follow=True))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        await trio.testing.wait_all_tasks_blocked(0.02)
        machine.runtime.containers[container].write("stdout", "last words")
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert got == []
        machine.runtime.exit(container, 0)
    assert got == ["starting\nready\nlast words\n"]


async def test_a_container_that_waits_to_start_again_shows_how_it_ended(
    machine: Simulation, server: Server, mock_clock: MockClock
) -> None:
    machine.runtime.program = lambda _: FakeProgram(
        output=(("stderr", "no luck"),), exit_after_seconds=0.1, exit_code=3
    )
    machine.runtime.exit(await current(server), 3)

    async def waits() -> bool:
        status = await server.container("mariadb")
        return "waiting" in status["state"] and status["restartCount"] >= 3

    await server.until(waits)
    assert await logs(server) == "no luck\n"
    assert (await server.container("mariadb"))["lastState"]["terminated"]["message"] == "no luck"


async def test_a_container_that_never_ran_says_why(machine: Simulation, mock_clock: MockClock) -> None:
    machine.network.host_programs[8080, "tcp"] = "apache2"
    async with machine.run() as server:
        await server.install("wordpress")
        await server.reason("wordpress", "PortInUse")
        access = PodAccess(server.kubelet)
        with pytest.raises(BadRequestError, match=r"is waiting to start: .*apache2"):
            async with access.read_logs("default", "wordpress-0", None):
                pass


async def test_a_process_runs_in_the_container(machine: Simulation, server: Server, mock_clock: MockClock) -> None:
    async def echo(session: FakeExec) -> int:
        await session.stdout.send_all(" ".join(session.spec.argv).encode())
        return 7

    machine.runtime.exec_handler = echo
    access = PodAccess(server.kubelet)
    async with access.exec("default", "mariadb-0", "mariadb", ExecSpec(argv=("a", "b"))) as session:
        assert await session.stdout.receive_some(100) == b"a b"
        assert await session.wait() == 7


@pytest.mark.parametrize("do", ["logs", "exec"])
async def test_what_is_not_there_is_told(server: Server, mock_clock: MockClock, do: str) -> None:
    access = PodAccess(server.kubelet)

    async def ask(pod: str, container: str | None) -> None:
        context: Any = (
            access.read_logs("default", pod, container)
            if do == "logs"
            else access.exec("default", pod, container, ExecSpec(argv=("x",)))
        )
        async with context:
            pass

    with pytest.raises(NotFoundError, match='pods "nobody-0" not found'):
        await ask("nobody-0", None)
    with pytest.raises(BadRequestError, match="container web is not valid for pod mariadb-0; it has: mariadb"):
        await ask("mariadb-0", "web")


async def test_no_process_runs_in_a_container_that_does_not(
    machine: Simulation, server: Server, mock_clock: MockClock
) -> None:
    machine.runtime.program = lambda _: FakeProgram(start_error=127)
    machine.runtime.exit(await current(server), 3)

    async def waits() -> bool:
        return "waiting" in (await server.container("mariadb"))["state"]

    await server.until(waits)
    with pytest.raises(BadRequestError, match='container "mariadb" in pod "mariadb-0" is not running'):
        async with PodAccess(server.kubelet).exec("default", "mariadb-0", None, ExecSpec(argv=("x",))):
            pass
    await server.store.delete(POD, "default", "mariadb-0", grace_seconds=0)


async def test_a_process_in_the_envelope_of_a_binding_command(machine: Simulation, mock_clock: MockClock) -> None:
    seen: list[ExecSpec] = []

    async def handler(inside: FakeExec) -> int:
        if inside.spec.user is not None:  # not ready.sh
            seen.append(inside.spec)
        return 0

    machine.runtime.exec_handler = handler
    async with machine.run() as server:
        await server.install("mariadb")
        await server.ready("mariadb")
        spec = ExecSpec(argv=("create_user", "me"), stdin=True)
        for binding in (ExecBinding(), ExecBinding(config=BindingConfig(uid=7, gid=8))):
            access = PodAccess(attrs.evolve(server.kubelet, binding=binding))
            async with access.exec("default", "mariadb-0", None, spec, as_binding=True) as session:
                assert await session.wait() == 0
        with pytest.raises(BadRequestError, match="runs nothing in containers"):
            async with PodAccess(server.kubelet).exec("default", "mariadb-0", None, spec, as_binding=True):
                pass
    assert [found.user for found in seen] == ["65534:65534", "7:8"]
    for found in seen:
        assert (found.argv, found.stdin, found.capabilities, found.working_directory) == (
            ("create_user", "me"),
            True,
            frozenset(),
            "/",
        )
        assert found.environment == ENVIRONMENT
