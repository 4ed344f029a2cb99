"""FakeRuntime: containers whose programs are a few words of data, and exec sessions that a callable of the test plays.

A container has no process and no task: its end is either a deadline on trio's clock or an event, so containers live
on when the provider is closed and opened again, as the contract says.
"""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import attrs
import trio
from trio.testing import MemorySendStream, memory_stream_one_way_pair

from nanocloud.errors import AlreadyExistsError, InvalidError, NotFoundError, ProviderError, UnavailableError
from nanocloud.providers.base import Removable
from nanocloud.providers.runtime import (
    ContainerId,
    ContainerSpec,
    ContainerState,
    ContainerStatus,
    ExecSession,
    ExecSpec,
    ExitStatus,
    RuntimeProvider,
)
from nanocloud.testkit.calls import Calls, now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

_ID = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
_KILLED = 137
_FIRST_PID = 1000


@attrs.frozen(kw_only=True)
class FakeProgram:
    """What a container's first process does."""

    output: tuple[tuple[str, str], ...] = ()
    """Lines it writes when it starts: ``("stdout", "listening")``."""
    exit_after_seconds: float | None = None
    """None: it runs until it is stopped, removed, or ended by ``FakeRuntime.exit``."""
    exit_code: int = 0
    stop_exit_code: int | None = 0
    """How it ends on its stop signal; None: it ignores the signal and is killed after the grace."""
    start_error: int | None = None
    """127 or 126: the program does not exist, or cannot be executed."""


@attrs.define(eq=False, kw_only=True)
class FakeContainer:
    """One container, open for tests to look at."""

    spec: ContainerSpec
    pid: int
    created_at: float
    program: FakeProgram = FakeProgram()
    started_at: float | None = None
    ends_at: float | None = None
    exit: ExitStatus | None = None
    ended: trio.Event = attrs.field(factory=trio.Event)
    execs: list[ExecSpec] = attrs.field(factory=list[ExecSpec])

    @property
    def state(self) -> ContainerState:
        self._settle()
        if self.exit is not None:
            return ContainerState.EXITED
        return ContainerState.CREATED if self.started_at is None else ContainerState.RUNNING

    @property
    def status(self) -> ContainerStatus:
        state = self.state
        return ContainerStatus(
            id=self.spec.id,
            labels=dict(self.spec.labels),
            state=state,
            pid=None if state is ContainerState.EXITED else self.pid,
            created_at=self.created_at,
            started_at=self.started_at,
            exit=self.exit,
            log_path=self.spec.log_path,
        )

    def finish(self, code: int, *, at: float | None = None, out_of_memory: bool = False) -> ExitStatus:
        """End the process; an end that came earlier stands."""
        if self.exit is None:
            self.exit = ExitStatus(code=code, finished_at=now() if at is None else at, out_of_memory=out_of_memory)
            self.ended.set()
        return self.exit

    async def wait(self) -> ExitStatus:
        self._settle()
        while self.exit is None:
            left = float("inf") if self.ends_at is None else max(0.0, self.ends_at - now())
            with trio.move_on_after(left):
                await self.ended.wait()
            self._settle()
        return self.exit

    def write(self, stream: str, text: str) -> None:
        """Append lines to the container's log, in the CRI format."""
        moment = now()
        seconds = datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%dT%H:%M:%S")
        stamp = f"{seconds}.{int(moment % 1 * 1e9):09}Z"
        with self.spec.log_path.open("a") as log:
            log.writelines(f"{stamp} {stream} F {line}\n" for line in text.splitlines())

    def _settle(self) -> None:
        if self.ends_at is not None and now() >= self.ends_at:
            self.finish(self.program.exit_code, at=self.ends_at)


@attrs.frozen(kw_only=True)
class FakeExec:
    """One exec session, as the test's handler sees it from inside the container."""

    container: FakeContainer
    spec: ExecSpec
    stdin: trio.abc.ReceiveStream | None
    stdout: trio.abc.SendStream
    stderr: trio.abc.SendStream | None
    """None with a terminal."""
    sizes: list[tuple[int, int]]
    """Rows and columns of every ``resize``."""


def _run_on(_: ContainerSpec) -> FakeProgram:
    return FakeProgram()


async def _succeed(_: FakeExec) -> int:
    return 0


class FakeRuntime(RuntimeProvider, Removable):
    """Runs ``program(spec)`` in each container, and plays each exec session by ``exec_handler``.

    A handler that returns is a process that ended with that code; it is cancelled when the session or the container
    ends. Both may be replaced at any time.
    """

    def __init__(
        self,
        *,
        program: Callable[[ContainerSpec], FakeProgram] = _run_on,
        exec_handler: Callable[[FakeExec], Awaitable[int]] = _succeed,
    ) -> None:
        self.calls = Calls()
        self.program, self.exec_handler = program, exec_handler
        self.containers: dict[ContainerId, FakeContainer] = {}
        self._next_pid = _FIRST_PID

    @property
    def name(self) -> str:
        return "fake"

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        yield

    async def create(self, spec: ContainerSpec) -> None:
        await self.calls.enter("create", spec.id)
        _check(spec)
        if spec.id in self.containers:
            raise AlreadyExistsError(f"container {spec.id} exists already")
        spec.log_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        spec.log_path.touch(mode=0o600)
        self.containers[spec.id] = FakeContainer(spec=spec, pid=self._next_pid, created_at=now())
        self._next_pid += 1

    async def start(self, container: ContainerId) -> ContainerStatus:
        await self.calls.enter("start", container)
        found = self._known(container)
        if found.state is ContainerState.RUNNING:
            return found.status
        if found.state is not ContainerState.CREATED:
            raise ProviderError(f"container {container} is {found.state.value}; only a created one can be started")
        found.program = program = self.program(found.spec)
        if program.start_error is not None:
            found.finish(program.start_error)
            raise ProviderError(f"container {container}: cannot execute {found.spec.argv[0]}")
        found.started_at = now()
        if program.exit_after_seconds is not None:
            found.ends_at = found.started_at + program.exit_after_seconds
        for stream, text in program.output:
            found.write(stream, text)
        return attrs.evolve(found.status, state=ContainerState.RUNNING, pid=found.pid, exit=None)

    async def wait(self, container: ContainerId) -> ExitStatus:
        await self.calls.enter("wait", container)
        return await self._known(container).wait()

    async def stop(self, container: ContainerId, *, grace_seconds: float) -> ExitStatus:
        await self.calls.enter("stop", container)
        found = self._known(container)
        if found.state is ContainerState.RUNNING and found.program.stop_exit_code is None:
            with trio.move_on_after(grace_seconds):
                return await found.wait()
        if found.state is ContainerState.RUNNING and found.program.stop_exit_code is not None:
            return found.finish(found.program.stop_exit_code)
        return found.finish(_KILLED)

    async def remove(self, container: ContainerId) -> None:
        await self.calls.enter("remove", container)
        if (found := self.containers.pop(container, None)) is not None and found.state is not ContainerState.EXITED:
            found.finish(_KILLED)

    async def list(self) -> Sequence[ContainerStatus]:
        await self.calls.enter("list", "")
        return [container.status for _, container in sorted(self.containers.items())]

    @asynccontextmanager
    async def exec(self, container: ContainerId, spec: ExecSpec) -> AsyncIterator[ExecSession]:
        await self.calls.enter("exec", container)
        found = self._known(container)
        if found.state is not ContainerState.RUNNING:
            raise UnavailableError(f"container {container} is {found.state.value}, not running")
        if not spec.argv:
            raise InvalidError(f"container {container}: the command to run is empty")
        found.execs.append(spec)
        session = _FakeSession(found, spec)
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.play, self.exec_handler)
            try:
                yield session
            except Exception as exc:  # raised again below: the nursery would put it into a group
                failure = exc
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def purge(self) -> None:
        for container in list(self.containers):
            await self.remove(container)

    def reboot(self) -> None:
        """What the machine's restart does: no container is left."""
        self.containers.clear()

    def exit(self, container: ContainerId, code: int, *, out_of_memory: bool = False) -> None:
        """Let the container's process end now."""
        self._known(container).finish(code, out_of_memory=out_of_memory)

    @property
    def running(self) -> set[ContainerId]:
        return {id_ for id_, container in self.containers.items() if container.state is ContainerState.RUNNING}

    def _known(self, container: ContainerId) -> FakeContainer:
        if container not in self.containers:
            raise NotFoundError(f"container {container} does not exist")
        return self.containers[container]


class _FakeSession(ExecSession):
    def __init__(self, container: FakeContainer, spec: ExecSpec) -> None:
        stdout, self.stdout = memory_stream_one_way_pair()
        stderr, self.stderr = (None, None) if spec.terminal else memory_stream_one_way_pair()
        self._outputs: list[MemorySendStream] = [stdout] if stderr is None else [stdout, stderr]
        self.stdin, stdin = memory_stream_one_way_pair() if spec.stdin else (None, None)
        self._sizes: list[tuple[int, int]] = []
        self._ended = trio.Event()
        self._code = _KILLED
        self._inside = FakeExec(
            container=container,
            spec=spec,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            sizes=self._sizes,
        )

    async def resize(self, *, rows: int, columns: int) -> None:
        await trio.lowlevel.checkpoint()
        if self._inside.spec.terminal:
            self._sizes.append((rows, columns))

    async def wait(self) -> int:
        await self._ended.wait()
        return self._code

    async def play(self, handler: Callable[[FakeExec], Awaitable[int]]) -> None:
        """Run the handler until it returns, the container ends, or the session is left."""
        try:
            async with trio.open_nursery() as nursery:

                async def end_with_the_container() -> None:
                    await self._inside.container.wait()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(end_with_the_container)
                self._code = await handler(self._inside)
                nursery.cancel_scope.cancel()
        finally:
            for stream in self._outputs:
                stream.close()
            self._ended.set()


def _check(spec: ContainerSpec) -> None:
    if not _ID.fullmatch(spec.id):
        raise InvalidError(f"container id {spec.id!r} does not match {_ID.pattern}")
    if not spec.argv or not spec.argv[0]:
        raise InvalidError(f"container {spec.id}: argv is empty")
    targets = [*(mount.target for mount in spec.mounts), *(file.path for file in spec.files), *spec.tmpfs]
    for path in (*targets, spec.working_directory):
        if not path.startswith("/"):
            raise InvalidError(f"container {spec.id}: {path!r} must be an absolute path")
