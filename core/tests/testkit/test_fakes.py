"""What the fakes offer to tests beyond the contracts: scripted programs, faults, virtual time."""

from __future__ import annotations

import subprocess
import sys
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from nanocloud.errors import ImageError, NotFoundError, PortInUseError, ProviderError, VolumeFullError
from nanocloud.providers.binding import BindingResult
from nanocloud.providers.network import PortMapping, SandboxId
from nanocloud.providers.runtime import ContainerId, ContainerSpec, ExecSpec
from nanocloud.providers.volume import VolumeId, VolumeSpec
from nanocloud.testkit import (
    FakeBinding,
    FakeExec,
    FakeImages,
    FakeNetwork,
    FakeProgram,
    FakeRuntime,
    FakeVolume,
)
from nanocloud.testkit.specs import binding_call, container_spec, sandbox_spec

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

WEB = ContainerId("web-0")


@pytest.fixture
def spec(tmp_path: Path) -> ContainerSpec:
    return container_spec(WEB, tmp_path / "logs", argv=("web",))


def test_testkit_needs_no_pytest() -> None:
    blocked = "import sys; sys.modules['pytest'] = sys.modules['_pytest'] = None; import nanocloud.testkit"
    subprocess.run([sys.executable, "-c", blocked], check=True)


async def test_program_ends_by_itself_in_virtual_time(spec: ContainerSpec, autojump_clock: MockClock) -> None:
    runtime = FakeRuntime(program=lambda _: FakeProgram(exit_after_seconds=3600, exit_code=3))
    await runtime.create(spec)
    started = await runtime.start(WEB)
    assert runtime.running == {WEB}
    ended = await runtime.wait(WEB)
    assert started.started_at is not None
    assert (ended.code, ended.finished_at - started.started_at) == (3, 3600)


async def test_deadline_counts_although_nobody_waited(spec: ContainerSpec, autojump_clock: MockClock) -> None:
    runtime = FakeRuntime(program=lambda _: FakeProgram(exit_after_seconds=10))
    await runtime.create(spec)
    started = await runtime.start(WEB)
    await trio.sleep(60)
    [status] = await runtime.list()
    assert status.exit is not None
    assert status.exit.finished_at == (started.started_at or 0) + 10


async def test_test_ends_a_container(spec: ContainerSpec) -> None:
    runtime = FakeRuntime()
    await runtime.create(spec)
    await runtime.start(WEB)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runtime.wait, WEB)
        await trio.testing.wait_all_tasks_blocked()
        runtime.exit(WEB, 137, out_of_memory=True)
    status = await runtime.wait(WEB)
    assert (status.code, status.out_of_memory) == (137, True)


async def test_program_that_heeds_the_stop_signal_needs_no_grace(
    spec: ContainerSpec, autojump_clock: MockClock
) -> None:
    runtime = FakeRuntime(program=lambda _: FakeProgram(stop_exit_code=5))
    await runtime.create(spec)
    await runtime.start(WEB)
    before = trio.current_time()
    assert (await runtime.stop(WEB, grace_seconds=30)).code == 5
    assert trio.current_time() == before


async def test_exec_ends_with_its_container(spec: ContainerSpec) -> None:
    async def forever(_: FakeExec) -> int:
        await trio.sleep_forever()

    runtime = FakeRuntime(exec_handler=forever)
    await runtime.create(spec)
    await runtime.start(WEB)
    async with runtime.exec(WEB, ExecSpec(argv=("sh",))) as session:
        runtime.exit(WEB, 1)
        assert await session.wait() == 137


async def test_exec_handler_sees_what_was_asked(spec: ContainerSpec) -> None:
    seen: list[FakeExec] = []

    async def handler(call: FakeExec) -> int:
        seen.append(call)
        await trio.sleep_forever()

    runtime = FakeRuntime(exec_handler=handler)
    await runtime.create(spec)
    await runtime.start(WEB)
    asked = ExecSpec(argv=("top",), terminal=True)
    async with runtime.exec(WEB, asked) as session:
        await trio.testing.wait_all_tasks_blocked()
        await session.resize(rows=24, columns=80)
        assert session.stderr is None
    assert (seen[0].spec, seen[0].sizes) == (asked, [(24, 80)])
    assert runtime.containers[WEB].execs == [asked]


async def test_error_inside_an_exec_session_comes_out_as_it_is(spec: ContainerSpec) -> None:
    runtime = FakeRuntime()
    await runtime.create(spec)
    await runtime.start(WEB)
    with pytest.raises(KeyError, match="mine"):
        async with runtime.exec(WEB, ExecSpec(argv=("true",))):
            raise KeyError("mine")


async def test_planned_faults_change_nothing_and_pass(spec: ContainerSpec) -> None:
    runtime = FakeRuntime()
    runtime.calls.fail("create", ProviderError("disk full"), times=2)
    for _ in range(2):
        with pytest.raises(ProviderError, match="disk full"):
            await runtime.create(spec)
    assert runtime.containers == {}
    await runtime.create(spec)
    assert runtime.calls.of("create") == [WEB] * 3


async def test_cancelled_call_changes_nothing(spec: ContainerSpec, autojump_clock: MockClock) -> None:
    runtime = FakeRuntime()
    runtime.calls.delay("create", 60)
    with trio.move_on_after(30) as scope:
        await runtime.create(spec)
    assert scope.cancelled_caught
    assert runtime.containers == {}


async def test_restart_makes_a_new_container_under_the_same_name(spec: ContainerSpec) -> None:
    runtime = FakeRuntime()
    pids = []
    for _ in range(2):
        await runtime.create(spec)
        pids.append((await runtime.start(WEB)).pid)
        await runtime.remove(WEB)
    assert pids == [1000, 1001]
    assert runtime.containers == {}


async def test_addresses_run_out_and_reserved_ones_go_to_who_needs_them() -> None:
    network = FakeNetwork(IPv4Network("10.0.0.0/29"))  # five addresses besides the gateway's
    first = await network.attach(sandbox_spec("s0"))
    for number in range(1, 5):
        await network.attach(sandbox_spec(f"s{number}"))
    with pytest.raises(ProviderError, match="no address is left"):
        await network.attach(sandbox_spec("s5"))
    await network.detach(SandboxId("s0"))
    assert (await network.attach(sandbox_spec("s5"))).addresses == first.addresses


async def test_ports_of_the_hosts_programs_are_refused_by_name() -> None:
    network = FakeNetwork()
    network.host_programs[80, "tcp"] = "apache2"
    with pytest.raises(PortInUseError, match="apache2"):
        await network.attach(sandbox_spec("web", PortMapping(host_port=80, container_port=80)))


async def test_volumes_share_the_capacity(tmp_path: Path) -> None:
    async with FakeVolume(tmp_path, capacity_bytes=100) as volumes:
        await volumes.create(VolumeSpec(id=VolumeId("one"), size_bytes=60))
        with pytest.raises(VolumeFullError, match="asks for 60 bytes; 40 bytes are free"):
            await volumes.create(VolumeSpec(id=VolumeId("two"), size_bytes=60))
        await volumes.publish(VolumeId("one"), consumer="web")
        volumes.reboot()
        assert [status.consumers for status in await volumes.list()] == [()]


async def test_images_are_fetched_found_here_and_collected() -> None:
    images = FakeImages()
    maria = images.add("mariadb", description="database")
    with pytest.raises(NotFoundError) as caught:
        await images.resolve("mariabd")
    assert caught.value.hint == "did you mean mariadb?"
    with pytest.raises(NotFoundError):
        await images.local(maria.digest)
    assert (await images.ensure(await images.resolve("mariadb"))).image == maria
    assert (await images.local(maria.digest)).image == maria
    assert [entry.service for entry in await images.catalog()] == ["mariadb"]
    assert await images.collect({maria.digest}) == []
    assert await images.collect(set()) == [maria.digest]
    assert images.add("mariadb").digest != maria.digest
    images.calls.fail("ensure", ImageError("registry is away"))
    with pytest.raises(ImageError):
        await images.ensure(maria)


async def test_binding_outcomes_follow_the_handler_and_mask_secrets() -> None:
    codes = iter([0, 1, None])
    binding = FakeBinding(lambda _: next(codes))
    call = binding_call("create_user", "wordpress", b"s3cret", container=WEB, runtime=FakeRuntime())
    outcomes = [await binding.run(call) for _ in range(3)]
    assert [outcome.result for outcome in outcomes] == [
        BindingResult.COMPLETED,
        BindingResult.FAILED,
        BindingResult.TIMEOUT,
    ]
    assert outcomes[0].output == "create_user wordpress ********"
    assert binding.runs == [call] * 3
