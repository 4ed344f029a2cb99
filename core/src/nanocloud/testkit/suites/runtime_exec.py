"""What every runtime provider must keep of processes that are run in a container."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from nanocloud.errors import UnavailableError
from nanocloud.providers.runtime import (
    ContainerSpec,
    ContainerState,
    ExecSession,
    ExecSpec,
    RuntimeProvider,
)

if TYPE_CHECKING:
    from collections.abc import Callable

from nanocloud.testkit.suites.containers import (
    CAT,
    CAT_SECRETS,
    EXIT_7,
    FILTERED,
    LIMIT_SECONDS,
    MISSING,
    RUN_ON,
    SAY,
    SHOW_A,
    STATUS,
    WEB,
    ContainerSuite,
    fields_of,
)


class RuntimeExecSuite(ContainerSuite):
    """A part of RuntimeProviderSuite."""

    async def test_exec_carries_input_and_output(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """Closing it is end of file for the process."""
        async with self.running(provider, spec()), provider.exec(WEB, ExecSpec(argv=CAT, stdin=True)) as session:
            assert session.stdin is not None
            sent = b"there and back" * 20_000  # far more than pipes hold
            read: list[bytes] = []

            async def read_on() -> None:
                read.append(await read_all(session.stdout))

            with trio.fail_after(LIMIT_SECONDS):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(read_on)
                    await session.stdin.send_all(sent)
                    await session.stdin.aclose()
                assert read == [sent]
                assert [await session.wait(), await session.wait()] == [0, 0]

    async def test_exec_without_input_finds_its_end(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """False: standard input is closed (``/dev/null``)."""
        async with self.running(provider, spec()):
            assert await run_in(provider, ExecSpec(argv=CAT)) == (0, b"", b"")

    async def test_exec_tells_output_from_error_and_gives_the_exit_code(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """Wait for the end and return the exit code (128 + signal after a signal); may be called again."""
        async with self.running(provider, spec()):
            assert await run_in(provider, ExecSpec(argv=SAY)) == (0, b"one\n", b"two\n")
            assert await run_in(provider, ExecSpec(argv=EXIT_7)) == (7, b"", b"")

    async def test_exec_on_a_terminal(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """A pseudo terminal: standard error is joined to output and ``resize`` works."""
        async with (
            self.running(provider, spec()),
            provider.exec(WEB, ExecSpec(argv=SAY, terminal=True)) as session,
        ):
            assert session.stderr is None
            await session.resize(rows=40, columns=100)
            assert sorted((await read_all(session.stdout)).split()) == [b"one", b"two"]
            assert await session.wait() == 0

    async def test_exec_of_a_missing_program_ends_with_127(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """A program that cannot be started ends with 127 (not found) or 126 (not executable), with the reason on
        standard error, as a shell would say it."""
        async with self.running(provider, spec()):
            code, _, reason = await run_in(provider, ExecSpec(argv=MISSING))
            assert code == 127
            assert reason

    async def test_exec_reads_secrets_from_descriptors(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """Given as memory files at descriptors 3, 4, ...: ``/dev/fd/3`` is ``secrets[0]``; readable by ``user``
        only."""
        async with self.running(provider, spec()):
            exec_spec = ExecSpec(argv=CAT_SECRETS, secrets=(b"first", b"second "))
            assert await run_in(provider, exec_spec) == (0, b"second first", b"")

    async def test_exec_has_the_containers_environment_or_its_own(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """None: the container's own environment. A mapping replaces it whole."""
        async with self.running(provider, spec(environment={"A": "of the container"})):
            for environment, shown in ((None, b"of the container\n"), ({"A": "own"}, b"own\n"), ({"B": "x"}, b"\n")):
                code, output, _ = await run_in(provider, ExecSpec(argv=SHOW_A, environment=environment))
                assert (code, output) == (0, shown)

    async def test_exec_is_confined_as_the_container_is(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """Run one more process in the container, with its seccomp filter, cgroup and namespaces."""
        async with self.running(provider, spec()):
            _, output, _ = await run_in(provider, ExecSpec(argv=STATUS))
            shown = fields_of(output.decode().splitlines())
            assert (shown["Seccomp"], shown["NoNewPrivs"], int(shown["CapEff"], 16)) == (FILTERED, "1", 0)

    async def test_exec_runs_as_the_container_does(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """None: the container's own user."""
        async with self.running(provider, spec(user="1234:5678")):
            for user, ids in ((None, ("1234", "5678")), ("9:8", ("9", "8"))):
                _, output, _ = await run_in(provider, ExecSpec(argv=STATUS, user=user))
                shown = fields_of(output.decode().splitlines())
                assert (shown["Uid"], shown["Gid"]) == ids

    async def test_exec_sessions_overlap(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """Sessions of one container may overlap."""
        outcomes: list[tuple[int, bytes, bytes]] = []

        async def run() -> None:
            outcomes.append(await run_in(provider, ExecSpec(argv=SAY)))

        async with self.running(provider, spec()), trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(run)
        assert outcomes == [(0, b"one\n", b"two\n")] * 5

    async def test_exec_needs_a_running_container(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """UnavailableError: the container is not running."""
        async with self.running(provider, spec(EXIT_7)):
            await provider.wait(WEB)
            with pytest.raises(UnavailableError, match=WEB):
                await provider.exec(WEB, ExecSpec(argv=CAT)).__aenter__()

    async def test_leaving_an_exec_session_kills_its_process(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """Leaving the context kills its process group if it still runs."""
        async with self.running(provider, spec()):
            async with provider.exec(WEB, ExecSpec(argv=RUN_ON)) as session:
                pass
            assert await session.wait() == 137
            [status] = await provider.list()
            assert status.state is ContainerState.RUNNING


async def run_in(provider: RuntimeProvider, spec: ExecSpec) -> tuple[int, bytes, bytes]:
    """Exit code, output and error of one command in the container."""
    async with provider.exec(WEB, spec) as session:
        output, error = await both(session)
        return await session.wait(), output, error


async def both(session: ExecSession) -> tuple[bytes, bytes]:
    """Read output and error side by side: a process that fills one pipe must not wait for the other."""
    read: dict[str, bytes] = {}

    async def keep(name: str, stream: trio.abc.ReceiveStream) -> None:
        read[name] = await read_all(stream)

    assert session.stderr is not None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep, "stdout", session.stdout)
        nursery.start_soon(keep, "stderr", session.stderr)
    return read["stdout"], read["stderr"]


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([bytes(piece) async for piece in stream])
