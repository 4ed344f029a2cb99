"""Servers die at any moment; the next one finds containers that are whole, and nothing of the others."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from conftest import ID, executed

from nanocloud.providers.runtime import ContainerId, ContainerSpec, ContainerState, ExecSpec
from nanocloud.testkit.suites.abrupt import killed
from nanocloud_runtime_runc.cgroups import Groups
from nanocloud_runtime_runc.processes import Process
from nanocloud_runtime_runc.runtime import RuncRuntime

pytestmark = pytest.mark.root
Make = Callable[[], RuncRuntime]
Spec = Callable[..., ContainerSpec]
Tell = Callable[[str], None]
CHANGES = frozenset(
    {"os.posix_spawn", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chown", "os.chmod", "os.kill"}
)
"""Events at which Python is about to change the machine. Source: the library's "Audit events table"."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
HIERARCHIES = (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*/"))


def die_at(step: int) -> None:
    """Kill this process when it is about to change the machine for the n-th time."""
    seen = 0

    def look(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event in CHANGES or (event == "open" and int(str(arguments[2])) & WRITING):
            seen += 1
            if seen == step + 1:  # to kill is an event, too
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)


async def killed_at_every_step(
    make: Make, before: Callable[[RuncRuntime], Awaitable[None]], work: Callable[[RuncRuntime], Awaitable[None]]
) -> int:
    """Kill a server at every step of ``work``, and look each time at what the next one finds; how many steps."""
    for step in range(500):

        async def die(runtime: RuncRuntime, tell: Tell, step: int = step) -> None:
            await before(runtime)
            die_at(step)
            await work(runtime)
            tell("done")

        told = await killed(make, die)
        async with make() as next_one:
            for status in await next_one.list():
                assert status.state in (ContainerState.CREATED, ContainerState.RUNNING)
                await next_one.remove(status.id)
            assert left_by(next_one) == set()
        if told:
            return step
    raise AssertionError("it never came to an end")


def left_by(runtime: RuncRuntime) -> set[str]:
    """Whatever there is of containers: folders, mounts, control groups, processes."""
    run, state = runtime._run, runtime._state
    folders = (run / "containers", run / "runc", state / "layers")
    found = {str(path) for folder in folders for path in folder.iterdir()}
    found |= {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"{run}/" in line}
    parent = runtime._groups.parent
    found |= {str(group) for hierarchy in HIERARCHIES for group in hierarchy.glob(f"{parent[1:]}/**/{ID}")}
    return found | {str(process) for process in runtime._runc.makers()}


def commands_of(processes: list[Process]) -> list[bytes]:
    return [Path(f"/proc/{process.pid}/cmdline").read_bytes() for process in processes]


def folders(path: Path) -> set[str]:
    return {inner.name for inner in path.iterdir()} if path.exists() else set()


async def test_a_server_that_is_killed_while_it_makes_a_container(make_runtime: Make, spec: Spec) -> None:
    async def nothing(runtime: RuncRuntime) -> None:
        pass

    async def make(runtime: RuncRuntime) -> None:
        await runtime.create(spec())
        await runtime.start(ID)

    assert await killed_at_every_step(make_runtime, nothing, make) > 10


async def test_a_server_that_is_killed_while_it_removes_a_container(make_runtime: Make, spec: Spec) -> None:
    async def make(runtime: RuncRuntime) -> None:
        await runtime.create(spec("mkdir -p /a/b/c; sleep 1000000"))
        await runtime.start(ID)

    async def remove(runtime: RuncRuntime) -> None:
        await runtime.remove(ID)

    assert await killed_at_every_step(make_runtime, make, remove) > 10


@pytest.mark.parametrize("milliseconds", range(0, 100, 6))
async def test_a_cancelled_create_leaves_nothing(runtime: RuncRuntime, spec: Spec, milliseconds: int) -> None:
    with trio.move_on_after(milliseconds / 1000) as scope:
        await runtime.create(spec())
    if not scope.cancelled_caught:
        await runtime.remove(ID)
    assert left_by(runtime) == set()


async def test_sessions_of_a_killed_server_end(make_runtime: Make, spec: Spec, cgroup: str) -> None:
    async def work(runtime: RuncRuntime, tell: Tell) -> None:
        await runtime.create(spec("sleep 1000000 & sleep 1000000"))
        await runtime.start(ID)
        async with runtime.exec(ID, ExecSpec(argv=("sh", "-c", "echo go; sleep 1000000 & wait"))) as session:
            assert await session.stdout.receive_some() == b"go\n"
            tell("")
            await trio.sleep_forever()

    await killed(make_runtime, work)
    async with make_runtime() as runtime:
        [status] = await runtime.list()
        assert commands_of(Groups(cgroup).members(ID)) == [b"sleep\x001000000\0"] * 2
        assert list(runtime._runc.makers("exec")) == []
        assert status.state is ContainerState.RUNNING
        assert await executed(runtime, "echo on") == (0, "on\n")


async def test_a_container_without_its_monitor_is_lost(runtime: RuncRuntime, spec: Spec) -> None:
    await runtime.create(spec())
    started = await runtime.start(ID)
    assert started.pid is not None
    first = Process.find(started.pid)
    assert first is not None
    async with trio.open_nursery() as nursery:
        ended = []

        async def wait() -> None:
            ended.append(await runtime.wait(ID))

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        os.kill(first.parent, signal.SIGKILL)
    assert [status.code for status in ended] == [255]
    assert not first.is_alive
    [status] = await runtime.list()
    assert (status.state, status.exit) == (ContainerState.EXITED, ended[0])


async def test_one_container_that_cannot_be_put_in_order_keeps_no_other_from_its_server(
    make_runtime: Make, spec: Spec, tmp_path: Path
) -> None:
    async with make_runtime() as runtime:
        await runtime.create(spec())
        broken = tmp_path / "run" / "containers" / "broken"
        broken.mkdir()
        (broken / "record.json").write_text("{")
    async with make_runtime() as runtime:
        assert [status.id for status in await runtime.list()] == [ID]
        assert not broken.exists()


async def test_writable_layers_of_before_a_reboot_go(make_runtime: Make, spec: Spec, tmp_path: Path) -> None:
    layer = tmp_path / "state" / "layers" / "web-0" / "upper" / "a" / "b"
    layer.mkdir(parents=True)
    (layer / "out").symlink_to(tmp_path)
    async with make_runtime() as runtime:
        await runtime.create(spec())  # its id is free at once
        with trio.fail_after(30):
            while folders(tmp_path / "state" / "removed"):  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
    assert "layer" in folders(tmp_path)  # the link in it was not followed


async def test_purge_takes_running_containers_too(make_runtime: Make, spec: Spec, tmp_path: Path, cgroup: str) -> None:
    async with make_runtime() as runtime:
        for name in ("web-0", "web-1"):
            await runtime.create(spec(id=ContainerId(name)))
            await runtime.start(ContainerId(name))
        pids = [status.pid for status in await runtime.list()]
    await make_runtime().purge()
    assert [pid for pid in pids if pid is None or Process.find(pid)] == []
    assert not {"state", "run"} & folders(tmp_path)
    assert Groups(cgroup).members("") == []
    assert not any(cgroup[1:] in folders(hierarchy) for hierarchy in HIERARCHIES)
    await make_runtime().purge()
