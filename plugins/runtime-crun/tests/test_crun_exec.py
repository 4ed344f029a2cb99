"""One more process in a running container."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from nanocloud.errors import InvalidError
from nanocloud.providers.runtime import ContainerId, ContainerState, ExecSession, ExecSpec, Security
from nanocloud_runtime_crun.processes import command_line, every_pid, read_stat

if TYPE_CHECKING:
    from collections.abc import Callable

    from nanocloud.providers.runtime import ContainerSpec
    from nanocloud_runtime_crun.runtime import CrunRuntime

    Build = Callable[..., ContainerSpec]

pytestmark = pytest.mark.root

C = ContainerId("c")


@pytest.fixture
async def running(runtime: CrunRuntime, spec: Build, signs: Any) -> CrunRuntime:
    """A runtime with one container that runs."""
    capabilities = frozenset({"CAP_CHOWN", "CAP_KILL"})
    await runtime.create(
        spec(
            argv=("/bin/sleep", "1000000"),
            environment={"OWN": "1"},
            mounts=signs.mounts,
            security=Security(capabilities=capabilities),
        )
    )
    await runtime.start(C)
    return runtime


async def _read(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([bytes(piece) async for piece in stream])


async def _run(runtime: CrunRuntime, script: str, **fields: Any) -> tuple[int, str, str]:
    with trio.fail_after(30):
        async with runtime.exec(C, ExecSpec(argv=("/bin/sh", "-c", script), **fields)) as session:
            output = await _read(session.stdout)
            error = await _read(session.stderr) if session.stderr else b""
            return await session.wait(), output.decode(), error.decode()


async def test_environment_is_the_containers_or_exactly_the_given(running: CrunRuntime) -> None:
    async def environment(given: dict[str, str] | None) -> list[str]:
        async with running.exec(C, ExecSpec(argv=("/bin/env",), environment=given)) as session:
            return sorted((await _read(session.stdout)).decode().splitlines())

    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert await environment(None) == ["HOME=/root", "OWN=1", path]
    assert await environment({"ONLY": "this", "HOME": "/nonexistent"}) == ["HOME=/nonexistent", "ONLY=this"]
    assert await environment({}) == ["HOME=/"]


async def test_user_folder_and_capabilities_are_those_asked_for(running: CrunRuntime) -> None:
    script = "id -u; id -G; pwd; grep CapEff /proc/self/status; grep CapBnd /proc/self/status"
    zero, own = "0" * 16, f"{1 | 1 << 5:016x}"
    _, text, _ = await _run(running, script)
    assert text.split() == ["0", "0", "/", "CapEff:", own, "CapBnd:", own]
    _, text, _ = await _run(running, script, user="web", working_directory="/tmp", capabilities=frozenset())
    assert text.split() == ["100", "101", "200", "/tmp", "CapEff:", zero, "CapBnd:", zero]
    _, text, _ = await _run(running, script, user="65534:65534", capabilities=frozenset())
    assert text.split()[:2] == ["65534", "65534"]


async def test_filter_limits_and_namespaces_are_the_containers(running: CrunRuntime) -> None:
    _, text, _ = await _run(running, "grep -E '^(NoNewPrivs|Seccomp:)' /proc/self/status; readlink /proc/self/ns/pid")
    lines = text.split()
    assert lines[:4] == ["NoNewPrivs:", "1", "Seccomp:", "2"]
    [status] = await running.list()
    assert status.pid is not None
    assert lines[4] == _pid_namespace(status.pid)
    code, _, error = await _run(running, "unshare -U true")
    assert code != 0
    assert "not permitted" in error


def _pid_namespace(pid: int) -> str:
    return str(Path(f"/proc/{pid}/ns/pid").readlink())


async def test_standard_input_is_closed_unless_asked_for(running: CrunRuntime) -> None:
    assert await _run(running, "cat; readlink /proc/self/fd/0") == (0, "/dev/null\n", "")


async def test_megabytes_pass_both_ways(running: CrunRuntime) -> None:
    data = os.urandom(1 << 20) * 4
    got: list[bytes] = []
    with trio.fail_after(30):
        async with running.exec(C, ExecSpec(argv=("cat",), stdin=True)) as session:

            async def feed(stream: trio.abc.SendStream) -> None:
                async with stream:
                    await stream.send_all(data)

            async def take(session: ExecSession) -> None:
                got.append(await _read(session.stdout))

            assert session.stdin is not None
            async with trio.open_nursery() as nursery:
                nursery.start_soon(feed, session.stdin)
                nursery.start_soon(take, session)
            assert await session.wait() == 0
    assert got == [data]


async def test_terminal_has_a_size_and_joins_both_outputs(running: CrunRuntime) -> None:
    script = "read line; stty size; tty; echo error >&2; exit 3"
    with trio.fail_after(30):
        async with running.exec(C, ExecSpec(argv=("sh", "-c", script), stdin=True, terminal=True)) as session:
            assert session.stderr is None
            assert session.stdin is not None
            await session.resize(rows=33, columns=121)
            await session.stdin.send_all(b"go\n")
            text = (await _read(session.stdout)).decode().replace("\r", "")
            assert await session.wait() == 3
    assert text.splitlines() == ["go", "33 121", "/dev/pts/0", "error"]


async def test_closing_a_terminals_input_is_end_of_file(running: CrunRuntime) -> None:
    with trio.fail_after(30):
        async with running.exec(C, ExecSpec(argv=("cat",), stdin=True, terminal=True)) as session:
            assert session.stdin is not None
            await session.stdin.aclose()
            await _read(session.stdout)
            assert await session.wait() == 0


async def test_signal_and_exit_code_are_told(running: CrunRuntime) -> None:
    assert (await _run(running, "exit 42"))[0] == 42
    assert (await _run(running, "kill -9 $$"))[0] == 137


@pytest.mark.parametrize(("argv", "code"), [(("absent",), 127), (("/absent",), 127), (("/etc/passwd",), 126)])
@pytest.mark.parametrize("terminal", [False, True])
async def test_program_that_cannot_be_executed(
    running: CrunRuntime, argv: tuple[str, ...], code: int, terminal: bool
) -> None:
    with trio.fail_after(30):
        async with running.exec(C, ExecSpec(argv=argv, terminal=terminal)) as session:
            text = await _read(session.stdout if session.stderr is None else session.stderr)
            assert await session.wait() == code
    assert text.count(b"executable") == 1


async def test_absent_program_reads_no_input(running: CrunRuntime) -> None:
    async with running.exec(C, ExecSpec(argv=("/absent",), stdin=True)) as session:
        assert session.stdin is not None
        with pytest.raises(trio.BrokenResourceError):
            await session.stdin.send_all(b"x")
        await session.stdin.aclose()
        await session.resize(rows=1, columns=1)
        assert await _read(session.stdout) == b""
        assert await session.wait() == 127


async def test_secrets_are_for_the_user_alone(running: CrunRuntime) -> None:
    secrets = (b"first", b"second")
    script = "cat /dev/fd/3; echo; cat <&4; ls /proc/self/fd | wc -w; stat -L -c '%a %u:%g' /dev/fd/3"
    code, text, _ = await _run(running, script, secrets=secrets, user="web")
    assert (code, text.split()) == (0, ["first", "second6", "400", "100:101"])
    code, _, error = await _run(running, "echo x > /dev/fd/3", secrets=secrets, user="web")
    assert code != 0
    assert "denied" in error.lower() or "not permitted" in error.lower()


async def test_secret_is_in_no_file_and_no_argument(running: CrunRuntime, tmp_path: Path, signs: Any) -> None:
    spec = ExecSpec(
        argv=("/bin/sh", "-c", f"{signs.give}; sleep 1000000"),
        environment={"PASSWORD": "hunter2"},
        secrets=(b"tr0ub4dor",),
    )
    with trio.fail_after(30):
        async with running.exec(C, spec):
            await signs.wait()
            for words in (b"hunter2", b"tr0ub4dor"):
                for path in (tmp_path / "run").rglob("*"):
                    assert not path.is_file() or words not in path.read_bytes()
                for pid in every_pid():
                    assert not any(words.decode() in word for word in command_line(pid))


def _alive(runtime: CrunRuntime) -> set[int]:
    """The container's processes but for zombies, which its first process may leave unreaped."""
    stats = {pid: read_stat(pid) for pid in runtime._host.cgroups.members(C)}
    return {pid for pid, stat in stats.items() if stat is not None and stat.state != "Z"}


async def _left_after(runtime: CrunRuntime, own: set[int]) -> set[int]:
    """The container's processes once those that were killed are gone: the kernel takes a moment for each."""
    for pid in _alive(runtime) - own:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        with trio.move_on_after(5):
            await trio.lowlevel.wait_readable(descriptor)
        os.close(descriptor)
    return _alive(runtime)


async def test_leaving_kills_the_process_and_what_it_started(running: CrunRuntime, signs: Any) -> None:
    script = f"trap '' TERM HUP; (sleep 1000000 & sleep 1000000) & sleep 1000000 & {signs.give}; wait"
    own = _alive(running)
    for terminal in (False, True):
        with trio.fail_after(30):
            async with running.exec(C, ExecSpec(argv=("sh", "-c", script), terminal=terminal)) as session:
                await signs.wait()
                assert len(_alive(running)) >= len(own) + 3
            assert await session.wait() == 137
        assert await _left_after(running, own) == own
        assert not list(running._host.folder(C).exec_dir.iterdir())


async def test_leaving_at_any_moment_leaves_no_process(running: CrunRuntime) -> None:
    [before] = await running.list()
    own = _alive(running)
    for milliseconds in range(0, 20, 2):
        with trio.move_on_after(milliseconds / 1000):
            async with running.exec(C, ExecSpec(argv=("sleep", "1000000"))) as session:
                await session.wait()
    assert await _left_after(running, own) == own
    assert await running.list() == [before]


async def test_process_that_ended_leaves_its_daemons(running: CrunRuntime) -> None:
    own = _alive(running)
    assert (await _run(running, "sleep 1000000 > /dev/null 2>&1 &"))[0] == 0
    assert len(_alive(running) - own) == 1


async def test_twenty_sessions_side_by_side(running: CrunRuntime) -> None:
    codes: list[int] = []

    async def one(number: int) -> None:
        codes.append((await _run(running, f"exit {number}"))[0])

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(one, number)
    assert sorted(codes) == list(range(20))


async def test_container_that_ends_ends_its_sessions(running: CrunRuntime, signs: Any) -> None:
    with trio.fail_after(30):
        async with running.exec(C, ExecSpec(argv=("sh", "-c", f"{signs.give}; sleep 1000000"))) as session:
            await signs.wait()
            await running.stop(C, grace_seconds=0)
            assert await session.wait() == 137


async def test_bad_requests_are_refused(running: CrunRuntime) -> None:
    for spec in (
        ExecSpec(argv=()),
        ExecSpec(argv=("a\0b",)),
        ExecSpec(argv=("true",), working_directory="relative"),
        ExecSpec(argv=("true",), environment={"A=B": "x"}),
        ExecSpec(argv=("true",), capabilities=frozenset({"CAP_FLY"})),
        ExecSpec(argv=("true",), user="ghost"),
    ):
        with pytest.raises(InvalidError):
            await running.exec(C, spec).__aenter__()
    [status] = await running.list()
    assert status.state is ContainerState.RUNNING
