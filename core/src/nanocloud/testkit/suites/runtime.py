"""What every runtime provider must keep. The image under test holds ``/bin/sh``, ``cat``, ``echo`` and ``sleep``."""

from __future__ import annotations

import os
import re
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
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
    Mount,
    ProjectedFile,
    RuntimeProvider,
    Security,
)
from nanocloud.testkit.suites.base import ProviderSuite
from nanocloud.testkit.suites.cancelling import cancel_at_every_await

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

WEB, JOB = ContainerId("web-0"), ContainerId("job-0")
LIMIT_SECONDS = 30
"""More than any single step takes; a runtime that hangs fails instead of hanging the run."""

RUN_ON = ("/bin/sleep", "1000000")
"""As a container's first process it ignores SIGTERM, for it has no handler."""
ON_SIGNAL = ("/bin/sh", "-c", "trap 'exit 3' TERM; trap 'exit 4' USR1; echo ready; while :; do sleep 0.05; done")
EXIT_7 = ("/bin/sh", "-c", "exit 7")
SAY = ("/bin/sh", "-c", "echo one; echo two >&2; exit 0")
SHOW = ("/bin/sh", "-c", 'echo "$A"; echo "$PWD"; cat /proc/sys/kernel/hostname')
WRITE = ("/bin/sh", "-c", "cat /written; echo new > /written; cat /written")
MISSING = ("/bin/no-such-program",)
CAT = ("/bin/cat",)
CAT_FILE = ("/bin/cat", "/etc/projected")
CAT_MOUNT = ("/bin/cat", "/mounted/data")
CAT_SECRETS = ("/bin/cat", "/dev/fd/4", "/dev/fd/3")
STATUS = ("/bin/cat", "/proc/self/status")
SHOW_A = ("/bin/sh", "-c", 'echo "$A"')

FILTERED = "2"
"""SECCOMP_MODE_FILTER, as proc(5) shows it."""

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

        def build(argv: tuple[str, ...] = RUN_ON, *, container: ContainerId = WEB, **fields: Any) -> ContainerSpec:
            return ContainerSpec(
                id=container,
                labels={"nanocloud.io/pod": "web-0"},
                layers=layers,
                argv=argv,
                log_path=tmp_path / "logs" / f"{container}.log",
                **fields,
            )

        return build

    @asynccontextmanager
    async def running(self, provider: RuntimeProvider, spec: ContainerSpec) -> AsyncIterator[ContainerStatus]:
        with trio.fail_after(LIMIT_SECONDS):
            await provider.create(spec)
            yield await provider.start(spec.id)
            await provider.remove(spec.id)

    async def output(self, provider: RuntimeProvider, spec: ContainerSpec) -> list[str]:
        """What a container says until it ends."""
        async with self.running(provider, spec):
            assert (await provider.wait(spec.id)).code == 0
            return [text for _, text in _logged(spec.log_path)]

    def kill_behind_its_back(self, provider: RuntimeProvider, status: ContainerStatus) -> None:
        """End a container as the kernel or an administrator would."""
        assert status.pid is not None
        os.kill(status.pid, signal.SIGKILL)

    # Creating

    async def test_created_container_is_listed(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """Make the container ready to start; nothing of the image runs yet."""
        await provider.create(spec(SAY))
        [status] = await provider.list()
        assert (status.id, status.state) == (WEB, ContainerState.CREATED)
        assert (status.started_at, status.exit, status.log_path) == (None, None, spec().log_path)
        assert _logged(spec().log_path) == []

    async def test_labels_are_given_back(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """Kept by the runtime and given back by ``list``; the kubelet finds its pods again by them."""
        await provider.create(spec())
        [status] = await provider.list()
        assert dict(status.labels) == spec().labels

    async def test_taken_id_is_refused(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """AlreadyExistsError: the id is taken."""
        await provider.create(spec())
        with pytest.raises(AlreadyExistsError, match=WEB):
            await provider.create(spec())
        assert len(await provider.list()) == 1

    @pytest.mark.parametrize(
        "fields",
        [{"argv": ()}, {"id": "../escape"}, {"id": "x" * 64}, {"working_directory": "here"}, {"tmpfs": ("here",)}],
        ids=["argv", "path", "too-long", "working-directory", "tmpfs"],
    )
    async def test_what_cannot_be_is_refused_and_makes_nothing(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec], fields: dict[str, Any]
    ) -> None:
        """InvalidError: a field that cannot be used: a user the image does not have, an empty argv, a relative path."""
        with pytest.raises(InvalidError):
            await provider.create(attrs.evolve(spec(), **fields))
        assert list(await provider.list()) == []

    async def test_a_cancelled_create_leaves_no_container(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """Undoes itself on failure or cancellation."""

        async def create() -> None:
            await provider.create(spec())
            made.append(WEB)

        async def look() -> None:
            assert [status.id for status in await provider.list()] == made
            await provider.create(spec(container=JOB))
            for container in (WEB, JOB):
                await provider.remove(container)
            made.clear()

        made: list[ContainerId] = []
        await cancel_at_every_await(create, look)

    async def test_containers_are_made_side_by_side(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """They are safe to call concurrently for different objects."""
        codes: dict[str, int] = {}

        async def run(name: str) -> None:
            async with self.running(provider, spec(EXIT_7, container=ContainerId(name))):
                codes[name] = (await provider.wait(ContainerId(name))).code

        names = [f"job-{number}" for number in range(5)]
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(run, name)
        assert codes == dict.fromkeys(names, 7)
        assert list(await provider.list()) == []

    # What a container finds

    async def test_environment(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """What the first process finds in its environment."""
        shown = await self.output(provider, spec(SHOW, environment={"A": "b  c"}))
        assert shown[0] == "b  c"

    async def test_working_directory(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """Where the first process starts."""
        assert (await self.output(provider, spec(SHOW, working_directory="/run")))[1] == "/run"

    async def test_host_name(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """What the container calls itself."""
        assert (await self.output(provider, spec(SHOW, hostname="shop-7")))[2] == "shop-7"

    async def test_mounts_show_the_hosts_files(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec], tmp_path: Path
    ) -> None:
        """A host folder or file that the container sees at ``target`` (absolute)."""
        (tmp_path / "volume").mkdir()
        (tmp_path / "volume" / "data").write_text("of the host\n")
        mount = Mount(source=tmp_path / "volume", target="/mounted")
        assert await self.output(provider, spec(CAT_MOUNT, mounts=(mount,))) == ["of the host"]

    async def test_projected_files(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """A small file that exists only on tmpfs and appears in the container at ``path`` (absolute), read-only."""
        file = ProjectedFile(path="/etc/projected", content=b"s3cret\n")
        assert await self.output(provider, spec(CAT_FILE, files=(file,))) == ["s3cret"]

    async def test_what_is_written_goes_with_the_container(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec], layers: tuple[Path, ...]
    ) -> None:
        """The runtime puts a writable layer of this container on top and removes it with the container."""
        for _ in range(2):
            assert (await self.output(provider, spec(WRITE))).count("new") == 1
            spec().log_path.unlink()
        assert not any((layer / "written").exists() for layer in layers)

    async def test_user_and_group(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """As in an OCI image configuration: ``user``, ``uid``, ``user:group`` or ``uid:gid``; empty is root."""
        for user, ids in (("", ("0", "0")), ("1234:5678", ("1234", "5678"))):
            shown = _fields(await self.output(provider, spec(STATUS, user=user)))
            assert (shown["Uid"], shown["Gid"]) == ids
            spec().log_path.unlink()

    async def test_no_capabilities(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """No capability unless asked for."""
        for asked, bits in ((), 0), (("CAP_CHOWN", "CAP_KILL"), 0b100001):
            security = Security(capabilities=frozenset(asked))
            shown = _fields(await self.output(provider, spec(STATUS, security=security)))
            assert {int(shown[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {bits}
            spec().log_path.unlink()

    async def test_no_new_privileges(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """No-new-privileges, masked paths and namespaces always hold."""
        shown = _fields(await self.output(provider, spec(STATUS)))
        assert shown["NoNewPrivs"] == "1"

    async def test_system_calls_are_filtered(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """Which system calls are let through; the values are those of a Bundle's ``spec.security.seccompProfile``."""
        shown = _fields(await self.output(provider, spec(STATUS)))
        assert shown["Seccomp"] == FILTERED

    async def test_output_is_logged_in_the_cri_format(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """The container's standard output and error are appended to ``ContainerSpec.log_path`` in the CRI log format
        (``<RFC 3339 nanoseconds> stdout|stderr F|P <text>``) without the server's help."""
        async with self.running(provider, spec(SAY)):
            await provider.wait(WEB)
            assert sorted(_logged(spec().log_path)) == [("stderr", "two"), ("stdout", "one")]

    async def test_the_log_is_for_root_alone(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """On the host; its folder is made by the runtime, mode 0700."""
        await provider.create(spec())
        assert spec().log_path.parent.stat().st_mode & 0o777 == 0o700

    # Running

    async def test_started_container_runs(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """Run the container's process. When this returns its ``execve`` has succeeded."""
        async with self.running(provider, spec()) as started:
            assert started.state is ContainerState.RUNNING
            assert started.pid is not None
            assert started.started_at is not None
            assert list(await provider.list()) == [started]

    async def test_missing_program_ends_with_127(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """ProviderError: the program does not exist or cannot be executed; the container is then ``exited`` with 127 or
        126."""
        with trio.fail_after(LIMIT_SECONDS):
            await provider.create(spec(MISSING))
            with pytest.raises(ProviderError):
                await provider.start(WEB)
            assert (await provider.wait(WEB)).code == 127
        [status] = await provider.list()
        assert (status.state, status.pid) == (ContainerState.EXITED, None)

    async def test_start_repeats_safely(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """Repeats safely while it runs."""
        async with self.running(provider, spec()) as started:
            assert await provider.start(WEB) == started

    async def test_a_container_runs_once(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """ProviderError: it has ended; a container runs once."""
        async with self.running(provider, spec()):
            await provider.stop(WEB, grace_seconds=0)
            with pytest.raises(ProviderError, match=WEB):
                await provider.start(WEB)

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

    async def test_all_who_wait_are_told(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """A cancelled call leaves nothing behind, or something that calling it again, ``list`` and ``remove`` put
        right; the provider stays usable."""
        codes: list[int] = []

        async def wait() -> None:
            codes.append((await provider.wait(WEB)).code)

        async with self.running(provider, spec()):
            with trio.move_on_after(0.01) as given_up:
                await provider.wait(WEB)
            assert given_up.cancelled_caught
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(wait)
                await provider.stop(WEB, grace_seconds=0)
        assert codes == [137] * 3

    async def test_the_kernels_word_counts(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """Every container of this runtime, whoever made it; the kernel's word, not a record's, on what runs."""
        async with self.running(provider, spec()) as status:
            self.kill_behind_its_back(provider, status)
            assert (await provider.wait(WEB)).code == 137
            [status] = await provider.list()
            assert (status.state, status.pid) == (ContainerState.EXITED, None)

    # Stopping and removing

    async def test_stop_sends_the_stop_signal(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """What ``stop`` sends to the first process."""
        for signal_name, code in (("SIGTERM", 3), ("SIGUSR1", 4)):
            async with self.running(provider, spec(ON_SIGNAL, stop_signal=signal_name)):
                while not _logged(spec().log_path):  # noqa: ASYNC110 - nothing else tells that its traps are set
                    await trio.sleep(0.01)
                assert (await provider.stop(WEB, grace_seconds=LIMIT_SECONDS)).code == code
            spec().log_path.unlink()

    async def test_stop_kills_after_the_grace(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """Send the stop signal; after the grace kill every process of the container."""
        async with self.running(provider, spec()):
            assert (await provider.stop(WEB, grace_seconds=0.1)).code == 137

    async def test_a_stopped_container_has_ended(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """It has ended when this returns."""
        async with self.running(provider, spec()):
            stopped = await provider.stop(WEB, grace_seconds=0.1)
            [status] = await provider.list()
            assert (status.state, status.exit, status.pid) == (ContainerState.EXITED, stopped, None)

    async def test_stop_repeats_safely(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """Repeats safely."""
        async with self.running(provider, spec()):
            stopped = await provider.stop(WEB, grace_seconds=0)
            assert await provider.stop(WEB, grace_seconds=0) == stopped
        async with self.running(provider, spec(EXIT_7)):
            ended = await provider.wait(WEB)
            assert await provider.stop(WEB, grace_seconds=0) == ended

    async def test_a_cancelled_stop_can_be_done_again(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """A cancelled call leaves nothing behind, or something that calling it again, ``list`` and ``remove`` put
        right; the provider stays usable."""
        async with self.running(provider, spec()):
            with trio.move_on_after(0.05) as given_up:
                await provider.stop(WEB, grace_seconds=LIMIT_SECONDS)
            assert given_up.cancelled_caught
            assert (await provider.stop(WEB, grace_seconds=0)).code == 137

    async def test_removed_container_is_gone(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """Remove the container and all it holds but its log; kills it first if it runs."""
        async with self.running(provider, spec()):
            await provider.remove(WEB)
            assert list(await provider.list()) == []
        async with self.running(provider, spec(EXIT_7)):
            assert (await provider.wait(WEB)).code == 7

    async def test_removing_repeats(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """Unknown ids are no error."""
        await provider.create(spec())
        for _ in range(2):
            await provider.remove(WEB)
        await provider.remove(ContainerId("never-came"))
        assert list(await provider.list()) == []

    async def test_the_log_outlives_the_container(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """The file is kept when the container is removed."""
        async with self.running(provider, spec(SAY)):
            await provider.wait(WEB)
        assert len(_logged(spec().log_path)) == 2

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

    # Exec

    async def test_exec_carries_input_and_output(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """Closing it is end of file for the process."""
        async with self.running(provider, spec()), provider.exec(WEB, ExecSpec(argv=CAT, stdin=True)) as session:
            assert session.stdin is not None
            await session.stdin.send_all(b"there and back")
            await session.stdin.aclose()
            assert await _read_all(session.stdout) == b"there and back"
            assert await session.wait() == 0

    async def test_exec_without_input_finds_its_end(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """False: standard input is closed (``/dev/null``)."""
        async with self.running(provider, spec()):
            assert await _run(provider, ExecSpec(argv=CAT)) == (0, b"", b"")

    async def test_exec_tells_output_from_error_and_gives_the_exit_code(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """Wait for the end and return the exit code (128 + signal after a signal); may be called again."""
        async with self.running(provider, spec()):
            assert await _run(provider, ExecSpec(argv=SAY)) == (0, b"one\n", b"two\n")
            assert await _run(provider, ExecSpec(argv=EXIT_7)) == (7, b"", b"")

    async def test_exec_on_a_terminal(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """A pseudo terminal: standard error is joined to output and ``resize`` works."""
        async with (
            self.running(provider, spec()),
            provider.exec(WEB, ExecSpec(argv=SAY, terminal=True)) as session,
        ):
            assert session.stderr is None
            await session.resize(rows=40, columns=100)
            assert sorted((await _read_all(session.stdout)).split()) == [b"one", b"two"]
            assert await session.wait() == 0

    async def test_exec_of_a_missing_program_ends_with_127(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """A program that cannot be started ends with 127 (not found) or 126 (not executable), with the reason on
        standard error, as a shell would say it."""
        async with self.running(provider, spec()):
            code, _, reason = await _run(provider, ExecSpec(argv=MISSING))
            assert code == 127
            assert reason

    async def test_exec_reads_secrets_from_descriptors(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """Given as memory files at descriptors 3, 4, ...: ``/dev/fd/3`` is ``secrets[0]``; readable by ``user``
        only."""
        async with self.running(provider, spec()):
            exec_spec = ExecSpec(argv=CAT_SECRETS, secrets=(b"first", b"second "))
            assert await _run(provider, exec_spec) == (0, b"second first", b"")

    async def test_exec_has_the_containers_environment_or_its_own(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """None: the container's own environment. A mapping replaces it whole."""
        async with self.running(provider, spec(environment={"A": "of the container"})):
            for environment, shown in ((None, b"of the container\n"), ({"A": "own"}, b"own\n"), ({"B": "x"}, b"\n")):
                code, output, _ = await _run(provider, ExecSpec(argv=SHOW_A, environment=environment))
                assert (code, output) == (0, shown)

    async def test_exec_is_confined_as_the_container_is(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """Run one more process in the container, with its seccomp filter, cgroup and namespaces."""
        async with self.running(provider, spec()):
            _, output, _ = await _run(provider, ExecSpec(argv=STATUS))
            shown = _fields(output.decode().splitlines())
            assert (shown["Seccomp"], shown["NoNewPrivs"], int(shown["CapEff"], 16)) == (FILTERED, "1", 0)

    async def test_exec_runs_as_the_container_does(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """None: the container's own user."""
        async with self.running(provider, spec(user="1234:5678")):
            for user, ids in ((None, ("1234", "5678")), ("9:8", ("9", "8"))):
                _, output, _ = await _run(provider, ExecSpec(argv=STATUS, user=user))
                shown = _fields(output.decode().splitlines())
                assert (shown["Uid"], shown["Gid"]) == ids

    async def test_exec_sessions_overlap(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """Sessions of one container may overlap."""
        outcomes: list[tuple[int, bytes, bytes]] = []

        async def run() -> None:
            outcomes.append(await _run(provider, ExecSpec(argv=SAY)))

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

    # Life

    async def test_containers_outlive_a_killed_server(
        self, make_provider: Callable[[], RuntimeProvider], spec: Callable[..., ContainerSpec]
    ) -> None:
        """Containers outlive the server: after a crash a new provider over the same folders lists them with the same
        pids, and knows the exit code of those that ended meanwhile."""

        async def run(provider: RuntimeProvider, tell: Callable[[str], None]) -> None:
            for each in (spec(), spec(EXIT_7, container=JOB)):
                await provider.create(each)
                started = await provider.start(each.id)
                tell(str(started.pid))

        with trio.fail_after(LIMIT_SECONDS):
            pid, _ = await self.end_abruptly(make_provider, run)
            async with make_provider() as second:
                assert (await second.wait(JOB)).code == 7
                [web] = [status for status in await second.list() if status.id == WEB]
                assert (web.state, str(web.pid)) == (ContainerState.RUNNING, pid)
                assert (await second.stop(WEB, grace_seconds=0)).code == 137
                for container in (WEB, JOB):
                    await second.remove(container)

    async def test_closing_leaves_containers_alone(
        self, make_provider: Callable[[], RuntimeProvider], spec: Callable[..., ContainerSpec]
    ) -> None:
        """Leaving must not stop what outlives the server (containers, networks, mounts)."""
        with trio.fail_after(LIMIT_SECONDS):
            async with make_provider() as first:
                await first.create(spec())
                started = await first.start(WEB)
            async with make_provider() as second:
                assert list(await second.list()) == [started]
                await second.remove(WEB)

    async def test_purge_removes_everything(
        self, make_provider: Callable[[], RuntimeProvider], spec: Callable[..., ContainerSpec]
    ) -> None:
        """Remove every trace, of this provider's life and of earlier ones. Called on a provider that is not open;
        repeats safely."""
        async with make_provider() as first:
            for each in (spec(), spec(EXIT_7, container=JOB)):
                await first.create(each)
                await first.start(each.id)
        await self.purge(make_provider)
        async with make_provider() as second:
            assert list(await second.list()) == []

    async def test_what_a_killed_server_was_making_can_be_removed(
        self, make_provider: Callable[[], RuntimeProvider], spec: Callable[..., ContainerSpec]
    ) -> None:
        """Entering is idempotent on the host: a node that was killed enters again and finds what it left."""

        async def make(provider: RuntimeProvider, tell: Callable[[str], None]) -> None:
            for number in range(20):
                container = ContainerId(f"web-{number}")
                await provider.create(spec(container=container))
                tell(container)

        for killed_after in (1, 2):
            told = await self.end_abruptly(make_provider, make, after=killed_after)
            async with make_provider() as provider:
                left = [status.id for status in await provider.list()]
                assert set(left) >= set(told)
                for container in left:
                    await provider.remove(container)
                assert list(await provider.list()) == []
                async with self.running(provider, spec(EXIT_7, container=ContainerId("web-0"))):
                    assert (await provider.wait(ContainerId("web-0"))).code == 7


async def _run(provider: RuntimeProvider, spec: ExecSpec) -> tuple[int, bytes, bytes]:
    """Exit code, output and error of one command in the container."""
    async with provider.exec(WEB, spec) as session:
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


def _logged(file: Path) -> list[tuple[str, str]]:
    """Stream and text of the lines of a log, all of which are in the CRI format."""
    lines = [_CRI_LINE.fullmatch(line) for line in file.read_text().splitlines()]
    assert None not in lines
    return [(line[1], line[2]) for line in lines if line]


def _fields(status: list[str]) -> dict[str, str]:
    """The first value of each line of ``/proc/<pid>/status``; see proc(5)."""
    pairs = [line.partition(":") for line in status]
    return {name: (values.split() or [""])[0] for name, _, values in pairs}
