"""Processes that are run in a container: their terminals, their pipes, their secrets, and what is left of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from conftest import ID, executed

from nanocloud.errors import InvalidError
from nanocloud.providers.runtime import ContainerSpec, ExecSession, ExecSpec
from nanocloud_runtime_runc.cgroups import Groups
from nanocloud_runtime_runc.runtime import RuncRuntime

pytestmark = pytest.mark.root


@pytest.fixture
async def running(runtime: RuncRuntime, spec: Callable[..., ContainerSpec]) -> RuncRuntime:
    await runtime.create(spec(environment={"COLOUR": "blue"}))
    await runtime.start(ID)
    return runtime


async def shown(session: ExecSession, text: bytes) -> bytes:
    """What a terminal shows until ``text`` is in it, or to its end."""
    seen = b""
    while text not in seen and (piece := await session.stdout.receive_some()):
        seen += piece
    return seen


async def test_a_terminal_has_the_size_that_it_was_given(running: RuncRuntime) -> None:
    argv = ("sh", "-c", "trap 'stty size' WINCH; echo go; while :; do sleep 0.01; done")
    async with running.exec(ID, ExecSpec(argv=argv, terminal=True, stdin=True)) as session:
        assert session.stderr is None
        await shown(session, b"go")
        await session.resize(rows=41, columns=123)
        assert b"41 123" in await shown(session, b"123")
    assert await session.wait() == 137


async def test_closing_the_input_of_a_terminal_is_its_end_of_file(running: RuncRuntime) -> None:
    argv = ("sh", "-c", "stty -echo; echo go; cat; echo end; exit 3")
    async with running.exec(ID, ExecSpec(argv=argv, terminal=True, stdin=True)) as session:
        await shown(session, b"go")
        assert session.stdin is not None
        await session.stdin.send_all(b"typed\n")
        await session.stdin.aclose()
        assert await shown(session, b"never") in (b"\r\ntyped\r\nend\r\n", b"typed\r\nend\r\n")
        assert await session.wait() == 3


async def test_more_output_than_pipes_hold_stops_nobody(running: RuncRuntime) -> None:
    argv = ("sh", "-c", "dd if=/dev/zero bs=1M count=2 >&2; dd if=/dev/zero bs=1M count=3; exit 5")
    sizes = {"stdout": 0, "stderr": 0}

    async def count(name: str, stream: trio.abc.ReceiveStream) -> None:
        async for piece in stream:
            sizes[name] += len(piece.replace(b"\0", b"0")) if name == "stdout" else piece.count(b"\0")

    async with running.exec(ID, ExecSpec(argv=argv)) as session, trio.open_nursery() as nursery:
        assert session.stderr is not None
        nursery.start_soon(count, "stdout", session.stdout)
        nursery.start_soon(count, "stderr", session.stderr)
        assert await session.wait() == 5
    assert sizes == {"stdout": 3 << 20, "stderr": 2 << 20}


async def test_environment_user_folder_and_capabilities_are_the_containers_unless_given(running: RuncRuntime) -> None:
    script = "echo $COLOUR $SHAPE $(id -u) $(pwd) $(grep CapEff /proc/self/status | cut -f 2)"
    assert await executed(running, script) == (0, f"blue 0 / {0:016x}\n")
    given = ExecSpec(
        argv=(),
        environment={"SHAPE": "round", "PATH": "/bin"},
        user="7:8",
        working_directory="/tmp",
        capabilities=frozenset({"CAP_CHOWN"}),
    )
    fields = {name: getattr(given, name) for name in ("environment", "user", "working_directory", "capabilities")}
    assert await executed(running, script, **fields) == (0, f"round 7 /tmp {1:016x}\n")


async def test_a_secret_is_its_users_alone(running: RuncRuntime) -> None:
    script = "cat /dev/fd/3 /dev/fd/4; stat -L -c ' %a %u' /dev/fd/3"
    assert await executed(running, script, user="1000", secrets=(b"one", b"two")) == (0, "onetwo 400 1000\n")


async def test_what_cannot_be_run_is_refused(running: RuncRuntime) -> None:
    with pytest.raises(InvalidError, match="argv names no program"):
        await running.exec(ID, ExecSpec(argv=())).__aenter__()
    with pytest.raises(InvalidError, match="has no 'nobody'"):
        await running.exec(ID, ExecSpec(argv=("true",), user="nobody")).__aenter__()


@pytest.mark.parametrize("script", ["sleep 1000000 & wait", "trap '' TERM HUP; cat"])
async def test_leaving_ends_the_process_whatever_it_does(running: RuncRuntime, cgroup: str, script: str) -> None:
    async with running.exec(ID, ExecSpec(argv=("sh", "-c", f"echo go; {script}"), stdin=True)) as session:
        assert await session.stdout.receive_some() == b"go\n"
    assert await session.wait() == 137
    [status] = await running.list()
    assert [process.pid for process in Groups(cgroup).members(ID) if process.pid != status.pid] == []


async def test_leaving_does_not_wait_for_what_holds_the_output(running: RuncRuntime) -> None:
    async with running.exec(ID, ExecSpec(argv=("sh", "-c", "echo go; sleep 1000000 & exit 0"))) as session:
        assert await session.stdout.receive_some() == b"go\n"
    assert await session.wait() == 137


async def test_leaving_at_once_leaves_nothing(running: RuncRuntime, cgroup: str) -> None:
    """Wherever runc has got to meanwhile."""
    for number in range(15):
        with trio.move_on_after(number / 400):
            async with running.exec(ID, ExecSpec(argv=("sleep", "1000000"))):
                await trio.sleep_forever()
        [status] = await running.list()
        assert [process.pid for process in Groups(cgroup).members(ID)] == [status.pid]


async def test_a_container_that_ends_takes_its_sessions_along(running: RuncRuntime) -> None:
    async with running.exec(ID, ExecSpec(argv=("sleep", "1000000"))) as session:
        await running.stop(ID, grace_seconds=0)
        assert await session.wait() != 0
