"""What every runtime provider must keep. The image under test holds ``/bin/sh``, ``cat``, ``echo`` and ``sleep``."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from nanocloud.errors import AlreadyExistsError, InvalidError, NotFoundError, ProviderError, UnavailableError
from nanocloud.providers.runtime import (
    ContainerId,
    ContainerSpec,
    ContainerState,
    ContainerStatus,
    ExecSession,
    ExecSpec,
    RuntimeProvider,
)
from nanocloud.testkit.suites.base import ProviderSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

WEB = ContainerId("web-0")
LIMIT_SECONDS = 30
"""More than any single step takes; a runtime that hangs fails instead of hanging the run."""

RUN_ON = ("/bin/sleep", "1000000")
"""As a container's first process it ignores SIGTERM, for it has no handler."""
EXIT_7 = ("/bin/sh", "-c", "exit 7")
SAY = ("/bin/sh", "-c", "echo one; echo two >&2; exit 0")
MISSING = ("/bin/no-such-program",)
CAT = ("/bin/cat",)
CAT_SECRET = ("/bin/cat", "/dev/fd/3")

_CRI_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(?:Z|[+-]\d\d:\d\d) (stdout|stderr) [FP] (.*)")


class RuntimeProviderSuite(ProviderSuite[RuntimeProvider]):
    """A subclass gives ``layers`` too: the image's unpacked layers, lowest first."""

    contract = "runtime"

    @pytest.fixture
    def layers(self) -> tuple[Path, ...]:
        raise TypeError(f"{type(self).__name__} must define the fixture layers")

    @pytest.fixture
    def spec(self, layers: tuple[Path, ...], tmp_path: Path) -> Callable[..., ContainerSpec]:
        """Builds the spec of a container with the given argv."""

        def build(argv: tuple[str, ...] = RUN_ON, *, container: ContainerId = WEB) -> ContainerSpec:
            return ContainerSpec(
                id=container,
                labels={"nanocloud.io/pod": "web-0"},
                layers=layers,
                argv=argv,
                log_path=tmp_path / "logs" / f"{container}.log",
            )

        return build

    @asynccontextmanager
    async def running(self, provider: RuntimeProvider, spec: ContainerSpec) -> AsyncIterator[ContainerStatus]:
        with trio.fail_after(LIMIT_SECONDS):
            await provider.create(spec)
            yield await provider.start(spec.id)
            await provider.remove(spec.id)

    async def test_created_container_is_listed_with_its_labels(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """Make the container ready to start. Labels are kept by the runtime and given back by list."""
        await provider.create(spec())
        [status] = await provider.list()
        assert (status.id, dict(status.labels), status.state) == (WEB, spec().labels, ContainerState.CREATED)
        assert (status.started_at, status.exit, status.log_path) == (None, None, spec().log_path)

    async def test_taken_id_is_refused(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """AlreadyExistsError: the id is taken."""
        await provider.create(spec())
        with pytest.raises(AlreadyExistsError, match=WEB):
            await provider.create(spec())

    async def test_empty_argv_is_refused_and_makes_nothing(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """InvalidError: a field that cannot be used: an empty argv. Undoes itself on failure."""
        with pytest.raises(InvalidError):
            await provider.create(spec(()))
        assert list(await provider.list()) == []

    async def test_started_container_runs(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """Run the container's process. When this returns its execve has succeeded."""
        async with self.running(provider, spec()) as started:
            assert started.state is ContainerState.RUNNING
            assert started.pid is not None
            assert started.started_at is not None
            assert list(await provider.list()) == [started]

    async def test_missing_program_ends_with_127(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """ProviderError: the program does not exist; the container is then exited with 127."""
        with trio.fail_after(LIMIT_SECONDS):
            await provider.create(spec(MISSING))
            with pytest.raises(ProviderError):
                await provider.start(WEB)
            assert (await provider.wait(WEB)).code == 127
        [status] = await provider.list()
        assert (status.state, status.pid) == (ContainerState.EXITED, None)

    async def test_wait_gives_the_exit_code_again_and_again(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """Wait until the container ends; at once if it has."""
        async with self.running(provider, spec(EXIT_7)):
            first = await provider.wait(WEB)
            assert first.code == 7
            assert await provider.wait(WEB) == first
            [status] = await provider.list()
            assert (status.state, status.exit, status.pid) == (ContainerState.EXITED, first, None)

    async def test_stop_kills_after_the_grace_and_repeats_safely(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """Send the stop signal; after the grace kill every process of the container. Repeats safely."""
        async with self.running(provider, spec()):
            stopped = await provider.stop(WEB, grace_seconds=0.1)
            assert stopped.code == 137
            assert await provider.stop(WEB, grace_seconds=0.1) == stopped

    async def test_removed_container_is_gone_but_for_its_log(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """Remove the container and all it holds but its log; kills it first if it runs. Unknown ids are no error."""
        async with self.running(provider, spec()):
            await provider.remove(WEB)
            assert list(await provider.list()) == []
            await provider.remove(WEB)
        _read(spec().log_path)

    async def test_unknown_container_is_not_found(self, provider: RuntimeProvider) -> None:
        """Unknown ids raise NotFoundError unless a method says otherwise."""
        unknown = ContainerId("never-came")
        for call in (
            lambda: provider.start(unknown),
            lambda: provider.wait(unknown),
            lambda: provider.stop(unknown, grace_seconds=0),
            lambda: provider.exec(unknown, ExecSpec(argv=CAT)).__aenter__(),
        ):
            with pytest.raises(NotFoundError, match=unknown):
                await call()

    async def test_output_is_logged_in_the_cri_format(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """Standard output and error are appended to ContainerSpec.log_path in the CRI log format."""
        async with self.running(provider, spec(SAY)):
            await provider.wait(WEB)
            lines = [_CRI_LINE.fullmatch(line) for line in _read(spec().log_path).splitlines()]
        assert sorted(line.groups() for line in lines if line) == [("stderr", "two"), ("stdout", "one")]
        assert len(lines) == 2

    async def test_exec_carries_input_and_output(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """Run one more process in the container. Closing stdin is end of file for the process."""
        async with self.running(provider, spec()), provider.exec(WEB, ExecSpec(argv=CAT, stdin=True)) as session:
            assert session.stdin is not None
            await session.stdin.send_all(b"there and back")
            await session.stdin.aclose()
            assert await _read_all(session.stdout) == b"there and back"
            assert await session.wait() == 0

    async def test_exec_tells_output_from_error_and_gives_the_exit_code(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """Wait for the end and return the exit code; may be called again."""
        async with self.running(provider, spec()):
            assert await _run(provider, SAY) == (0, b"one\n", b"two\n")
            assert await _run(provider, EXIT_7) == (7, b"", b"")

    async def test_exec_of_a_missing_program_ends_with_127(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """A program that cannot be started ends with 127, with the reason on standard error."""
        async with self.running(provider, spec()):
            code, _, reason = await _run(provider, MISSING)
            assert code == 127
            assert reason

    async def test_exec_reads_a_secret_from_a_descriptor(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """Given as memory files at descriptors 3, 4, ...: /dev/fd/3 is secrets[0]."""
        async with self.running(provider, spec()):
            assert await _run(provider, CAT_SECRET, secrets=(b"s3cret",)) == (0, b"s3cret", b"")

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

    async def test_containers_outlive_the_server(
        self, make_provider: Callable[[], RuntimeProvider], spec: Callable[..., ContainerSpec]
    ) -> None:
        """After a crash a new provider over the same folders lists them with the same pids, and knows exit codes."""
        ended = ContainerId("job-0")
        with trio.fail_after(LIMIT_SECONDS):
            async with make_provider() as first:
                for each in (spec(), spec(EXIT_7, container=ended)):
                    await first.create(each)
                    await first.start(each.id)
                [before] = [status for status in await first.list() if status.id == WEB]
            async with make_provider() as second:
                assert (await second.wait(ended)).code == 7
                assert before in await second.list()
                assert (await second.stop(WEB, grace_seconds=0)).code == 137
                for container in (WEB, ended):
                    await second.remove(container)


async def _run(
    provider: RuntimeProvider, argv: tuple[str, ...], *, secrets: tuple[bytes, ...] = ()
) -> tuple[int, bytes, bytes]:
    """Exit code, output and error of one command in the container."""
    async with provider.exec(WEB, ExecSpec(argv=argv, secrets=secrets)) as session:
        output, error = await _both(session)
        return await session.wait(), output, error


async def _both(session: ExecSession) -> tuple[bytes, bytes]:
    """Read output and error side by side: a process that fills one pipe must not wait for the other."""
    read: dict[str, bytes] = {}

    async def keep(name: str, stream: trio.abc.ReceiveStream) -> None:
        read[name] = await _read_all(stream)

    assert session.stderr is not None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep, "stdout", session.stdout)
        nursery.start_soon(keep, "stderr", session.stderr)
    return read["stdout"], read["stderr"]


async def _read_all(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([bytes(piece) async for piece in stream])


def _read(file: Path) -> str:
    return file.read_text()
