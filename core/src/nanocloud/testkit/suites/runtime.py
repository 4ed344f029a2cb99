"""What every runtime provider must keep. The image under test holds ``/bin/sh``, ``cat``, ``echo`` and ``sleep``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from nanocloud.errors import AlreadyExistsError, InvalidError, NotFoundError, ProviderError
from nanocloud.providers.runtime import (
    ContainerId,
    ContainerSpec,
    ContainerState,
    ExecSpec,
    Mount,
    ProjectedFile,
    RuntimeProvider,
)
from nanocloud.testkit.suites.cancelling import cancel_at_every_await

if TYPE_CHECKING:
    from collections.abc import Callable

from nanocloud.testkit.suites.containers import (
    CAT,
    EXIT_7,
    JOB,
    LATE,
    LIMIT_SECONDS,
    MISSING,
    ON_SIGNAL,
    SAY,
    WEB,
    logged,
)
from nanocloud.testkit.suites.runtime_exec import RuntimeExecSuite
from nanocloud.testkit.suites.runtime_view import RuntimeViewSuite


class RuntimeProviderSuite(RuntimeExecSuite, RuntimeViewSuite):
    """A subclass gives ``layers`` too: the image's unpacked layers, lowest first."""

    # Creating

    async def test_created_container_is_listed(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """Make the container ready to start; nothing of the image runs yet."""
        await provider.create(spec(SAY))
        [status] = await provider.list()
        assert (status.id, status.state) == (WEB, ContainerState.CREATED)
        assert (status.started_at, status.exit, status.log_path) == (None, None, spec().log_path)
        assert logged(spec().log_path) == []

    async def test_labels_are_given_back(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """Kept by the runtime and given back by ``list``; the kubelet finds its pods again by them."""
        labels = {"nanocloud.io/pod": "web-0", "a": "", "b": "x=1,\ny ü\t'\""}
        await provider.create(attrs.evolve(spec(), labels=labels))
        [status] = await provider.list()
        assert dict(status.labels) == labels

    async def test_taken_id_is_refused(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """AlreadyExistsError: the id is taken."""
        await provider.create(spec())
        with pytest.raises(AlreadyExistsError, match=WEB):
            await provider.create(spec())
        assert len(await provider.list()) == 1

    @pytest.mark.parametrize(
        "fields",
        [
            {"argv": ()}, {"id": "../escape"}, {"id": "x" * 64}, {"id": ""}, {"id": "Upper"}, {"id": "web\n"},
            {"working_directory": "here"}, {"tmpfs": ("here",)},
            {"mounts": (Mount(source=Path("/tmp"), target="here"),)},
            {"files": (ProjectedFile(path="here", content=b""),)},
        ],
        ids=[
            "argv", "path", "too-long", "empty", "upper-case", "line", "working-directory", "tmpfs", "mount", "file",
        ],
    )  # fmt: skip
    async def test_what_cannot_be_is_refused_and_makes_nothing(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec], fields: dict[str, Any]
    ) -> None:
        """InvalidError: a field that cannot be used: a user the image does not have, an empty argv, a relative path."""
        with pytest.raises(InvalidError):
            await provider.create(attrs.evolve(spec(), **fields))
        assert list(await provider.list()) == []

    async def test_a_user_the_image_does_not_have_is_refused(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """InvalidError: a field that cannot be used: a user the image does not have, an empty argv, a relative path."""
        for user in ("no-such-user", "0:no-such-group"):
            with pytest.raises(InvalidError, match="no-such"):
                await provider.create(spec(user=user))
        assert list(await provider.list()) == []

    async def test_a_failed_create_leaves_no_container(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec], tmp_path: Path
    ) -> None:
        """Undoes itself on failure or cancellation."""
        with pytest.raises(ProviderError):
            await provider.create(attrs.evolve(spec(), layers=(tmp_path / "no-such-layer",)))
        assert list(await provider.list()) == []
        await provider.create(spec())

    async def test_the_longest_ids_are_told_apart(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """``[a-z0-9][a-z0-9.-]{0,62}``; chosen by the caller, unique on the node."""
        one, other = (ContainerId("long.name-" + "x" * 52 + last) for last in "ab")
        async with self.running(provider, spec(EXIT_7, container=one)), self.running(provider, spec(container=other)):
            assert (await provider.wait(one)).code == 7
            states = {status.id: status.state for status in await provider.list()}
            assert states == {one: ContainerState.EXITED, other: ContainerState.RUNNING}

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

    async def test_a_cancelled_start_can_be_done_again_or_undone(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """A cancelled call leaves nothing behind, or something that calling it again, ``list`` and ``remove`` put
        right; the provider stays usable."""

        async def look() -> None:
            [status] = await provider.list()
            if status.state is not ContainerState.EXITED:  # what a cancelled start began may have been killed
                assert (await provider.start(WEB)).state is ContainerState.RUNNING
            await provider.remove(WEB)
            assert list(await provider.list()) == []
            await provider.create(spec())

        await provider.create(spec())
        with trio.fail_after(LIMIT_SECONDS):
            await cancel_at_every_await(lambda: provider.start(WEB), look)

    async def test_a_container_runs_once(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """ProviderError: it has ended; a container runs once."""
        async with self.running(provider, spec(EXIT_7)):
            await provider.wait(WEB)
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
                while not logged(spec().log_path):  # noqa: ASYNC110 - nothing else tells that its traps are set
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

    async def test_who_waits_for_a_removed_container_is_told(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """Wait until the container ends; at once if it has."""
        codes: list[int] = []

        async def wait() -> None:
            try:
                codes.append((await provider.wait(WEB)).code)
            except NotFoundError:
                codes.append(137)

        async with self.running(provider, spec()), trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked(0.01)
            await provider.remove(WEB)
        assert codes == [137]

    async def test_a_cancelled_remove_can_be_done_again(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """A cancelled call leaves nothing behind, or something that calling it again, ``list`` and ``remove`` put
        right; the provider stays usable."""

        async def look() -> None:
            await provider.remove(WEB)
            assert list(await provider.list()) == []
            await provider.create(spec())
            await provider.start(WEB)

        with trio.fail_after(LIMIT_SECONDS):
            await provider.create(spec())
            await provider.start(WEB)
            await cancel_at_every_await(lambda: provider.remove(WEB), look)
            await provider.remove(WEB)

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
        assert len(logged(spec().log_path)) == 2

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

    async def test_containers_speak_and_end_without_a_server(
        self, make_provider: Callable[[], RuntimeProvider], spec: Callable[..., ContainerSpec], tmp_path: Path
    ) -> None:
        """Containers outlive the server: after a crash a new provider over the same folders lists them with the same
        pids, and knows the exit code of those that ended meanwhile. The container's standard output and error are
        appended to ``ContainerSpec.log_path`` in the CRI log format (``<RFC 3339 nanoseconds> stdout|stderr F|P
        <text>``) without the server's help."""
        (tmp_path / "volume").mkdir()
        late = spec(LATE, mounts=(Mount(source=tmp_path / "volume", target="/mounted"),))

        async def run(provider: RuntimeProvider, _: Callable[[str], None]) -> None:
            await provider.create(late)
            await provider.start(WEB)

        with trio.fail_after(LIMIT_SECONDS):
            await self.end_abruptly(make_provider, run)
            (tmp_path / "volume" / "go").touch()
            while logged(late.log_path) != [("stdout", "late")]:  # noqa: ASYNC110 - there is no server to be asked
                await trio.sleep(0.02)
            async with make_provider() as second:
                assert (await second.wait(WEB)).code == 7
                await second.remove(WEB)

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
