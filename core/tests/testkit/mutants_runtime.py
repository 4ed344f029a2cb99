"""Fake runtimes with one bug each that breaks sentences of their contract; see ``test_mutants.py``."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import trio
from subjects import CANCELLED, RuntimeSubject

from nanocloud.errors import AlreadyExistsError, ProviderError
from nanocloud.providers.runtime import ContainerState, ExitStatus
from nanocloud.testkit import FakeRuntime
from nanocloud.testkit.calls import now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nanocloud.providers.runtime import ContainerId, ContainerSpec, ContainerStatus


class LeaksAContainer(FakeRuntime):
    """A create that is cancelled at its end leaves the container."""

    async def create(self, spec: ContainerSpec) -> None:
        await super().create(spec)
        await trio.lowlevel.checkpoint()


class TestLeaksAContainer(RuntimeSubject):
    fake = LeaksAContainer
    breaks = ("Undoes itself on failure or cancellation.",)


class IgnoresCancellation(FakeRuntime):
    async def stop(self, container: ContainerId, *, grace_seconds: float) -> ExitStatus:
        with trio.CancelScope(shield=True):
            return await super().stop(container, grace_seconds=grace_seconds)


class TestIgnoresCancellation(RuntimeSubject):
    fake = IgnoresCancellation
    breaks = (CANCELLED,)


class ForgetsTheExitCode(FakeRuntime):
    """Of containers that ended while it was away."""

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        for container in self.containers.values():
            if container.state is ContainerState.EXITED and container.exit is not None:
                container.exit = attrs.evolve(container.exit, code=255)
        yield


class TestForgetsTheExitCode(RuntimeSubject):
    fake = ForgetsTheExitCode
    breaks = (
        "Containers outlive the server: after a crash a new provider over the same folders lists them with the same "
        "pids, and knows the exit code of those that ended meanwhile.",
    )


class StopDoesNotWait(FakeRuntime):
    """The container ends a little after ``stop`` has returned."""

    async def stop(self, container: ContainerId, *, grace_seconds: float) -> ExitStatus:
        found = self._known(container)
        before = found.exit
        ended = await super().stop(container, grace_seconds=grace_seconds)
        if before is None:
            found.exit, found.ended = None, trio.Event()
            found.program = attrs.evolve(found.program, exit_code=ended.code)
            found.ends_at = now() + 0.001
            return attrs.evolve(ended, finished_at=found.ends_at)
        return ended


class TestStopDoesNotWait(RuntimeSubject):
    fake = StopDoesNotWait
    breaks = ("It has ended when this returns.",)


class BeginsTheLogAnew(FakeRuntime):
    async def create(self, spec: ContainerSpec) -> None:
        is_new = spec.id not in self.containers
        await super().create(spec)
        if is_new:
            spec.log_path.write_bytes(b"")


class TestBeginsTheLogAnew(RuntimeSubject):
    fake = BeginsTheLogAnew
    breaks = (
        "The container's standard output and error are appended to ``ContainerSpec.log_path`` in the CRI log format "
        "(``<RFC 3339 nanoseconds> stdout|stderr F|P <text>``) without the server's help.",
    )


class LeavesWhoWaits(FakeRuntime):
    """Removing a container tells nobody who waits for its end."""

    async def remove(self, container: ContainerId) -> None:
        if (found := self.containers.get(container)) is not None and found.exit is None:
            found.ended = trio.Event()
        await super().remove(container)


class TestLeavesWhoWaits(RuntimeSubject):
    fake = LeavesWhoWaits
    breaks = ("Wait until the container ends; at once if it has.",)


class ForgetsBeforeItRemoves(FakeRuntime):
    """A remove that is cancelled leaves a container that nobody lists and whose id is taken."""

    async def remove(self, container: ContainerId) -> None:
        found = self.containers.pop(container, None)
        if found is not None:
            self._half_removed.add(container)
            await trio.lowlevel.checkpoint()
            self._half_removed.remove(container)
            self.containers[container] = found
        await super().remove(container)

    async def create(self, spec: ContainerSpec) -> None:
        if spec.id in self._half_removed:
            raise AlreadyExistsError(f"container {spec.id} exists already")
        await super().create(spec)

    def __init__(self, **play: Any) -> None:
        super().__init__(**play)
        self._half_removed: set[ContainerId] = set()


class TestForgetsBeforeItRemoves(RuntimeSubject):
    fake = ForgetsBeforeItRemoves
    breaks = (CANCELLED,)


class StopsHalfWay(FakeRuntime):
    """A start that is cancelled leaves a container that can neither be started nor has ended."""

    async def start(self, container: ContainerId) -> ContainerStatus:
        found = self._known(container)
        if found.started_at is None and container in self._begun:
            raise ProviderError(f"container {container} is being started")
        self._begun.add(container)
        await trio.lowlevel.checkpoint()
        self._begun.remove(container)
        return await super().start(container)

    def __init__(self, **play: Any) -> None:
        super().__init__(**play)
        self._begun: set[ContainerId] = set()


class TestStopsHalfWay(RuntimeSubject):
    fake = StopsHalfWay
    breaks = (CANCELLED,)


class WritesLabelsAsLines(FakeRuntime):
    """``name=value``, a line each."""

    async def create(self, spec: ContainerSpec) -> None:
        lines = "\n".join(f"{name}={value}" for name, value in spec.labels.items()).splitlines()
        labels = dict(line.partition("=")[::2] for line in lines)
        await super().create(attrs.evolve(spec, labels=labels))


class TestWritesLabelsAsLines(RuntimeSubject):
    fake = WritesLabelsAsLines
    breaks = ("Kept by the runtime and given back by ``list``; the kubelet finds its pods again by them.",)
