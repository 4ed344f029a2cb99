"""The provider: containers run by crun, watched over by conmon.

The truth about a container is its folder (``record``), its exit file and the kernel; nothing is kept in this process,
so a server that comes after a crash sees exactly what the one before saw.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import weakref
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

from nanocloud.errors import AlreadyExistsError, CorruptError, NotFoundError, ProviderError, UnavailableError
from nanocloud.providers.base import Removable
from nanocloud.providers.runtime import ContainerId, ContainerState, ContainerStatus, ExitStatus, RuntimeProvider
from nanocloud_runtime_crun import cgroups, creation, failures, recovery, starting, states
from nanocloud_runtime_crun._threads import run_in_own_thread
from nanocloud_runtime_crun.exec_session import open_session
from nanocloud_runtime_crun.host import Host, find_program, held_capabilities, prepare_tmpfs
from nanocloud_runtime_crun.monitor import CreateError, let_go
from nanocloud_runtime_crun.processes import send_signal
from nanocloud_runtime_crun.record import Failure, Phase
from nanocloud_runtime_crun.removal import take_down
from nanocloud_runtime_crun.validation import check_container, check_exec, is_container_id
from nanocloud_runtime_crun.view import make_base_view

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from nanocloud.providers.runtime import ContainerSpec, ExecSession, ExecSpec
    from nanocloud_runtime_crun.record import Folder, Record

_REMOVE_SECONDS = 60.0


@attrs.frozen(kw_only=True)
class CrunConfig:
    """The table ``[runtime-crun]``."""

    crun: str = "crun"
    """The program, by name or absolute path."""
    conmon: str = "conmon"
    cgroup: str = "/nanocloud"
    """The group, in every hierarchy, that the containers' groups are made in; two nodes on a host need two."""


class CrunRuntime(RuntimeProvider, Removable):
    """See ``nanocloud.providers.runtime`` for what each method promises."""

    def __init__(self, config: CrunConfig, *, state_dir: Path, run_dir: Path) -> None:
        self._config = config
        self._store_dir = state_dir / "containers"
        self._runtime_dir = run_dir / "runtime"
        self._opened: Host | None = None
        # One change of a container at a time; a lock lives as long as somebody holds or awaits it.
        self._locks: weakref.WeakValueDictionary[str, trio.Lock] = weakref.WeakValueDictionary()
        # Those who wait for containers whose program cannot be executed: they have no process to wait for.
        self._refusals = trio.lowlevel.ParkingLot()

    @property
    def name(self) -> str:
        return "runtime-crun"

    @property
    def _host(self) -> Host:
        if self._opened is None:
            raise RuntimeError("the provider is not open")
        return self._opened

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        host = await self._open()
        self._opened = host
        try:
            await recovery.recover(host)
            async with recovery.collecting_stores(host):
                yield
        finally:
            self._opened = None
            host.view.close()

    async def _open(self) -> Host:
        if os.geteuid() != 0:
            raise ProviderError("runtime-crun needs root: it makes namespaces, mounts and control groups")
        crun = find_program(self._config.crun, "crun")
        conmon = find_program(self._config.conmon, "conmon")
        layout = cgroups.probe()
        stage = self._runtime_dir / "view"
        try:
            prepare_tmpfs(self._runtime_dir)
            for path in (self._store_dir, self._runtime_dir / "crun", self._runtime_dir / "containers", stage):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            build = partial(
                make_base_view,
                stage=stage.resolve(),
                programs=(crun, conmon),
                runtime_dir=self._runtime_dir.resolve(),
                cgroup_root=layout.root,
                hide=layout.hide,
            )
            view = await run_in_own_thread(build)
        except OSError as exc:
            raise ProviderError(f"runtime-crun could not prepare {self._runtime_dir}: {exc}") from exc
        return Host(
            crun=crun,
            conmon=conmon,
            runtime_dir=self._runtime_dir.resolve(),
            store_dir=self._store_dir.resolve(),
            cgroups=cgroups.Cgroups(layout, "/" + self._config.cgroup.strip("/")),
            view=view,
            capabilities=held_capabilities(),
        )

    async def purge(self) -> None:
        async with self:
            for folder in self._host.folders():
                await take_down(self._host, folder)
            groups = self._host.cgroups
        await trio.to_thread.run_sync(recovery.remove_everything, groups, self._runtime_dir, self._store_dir)

    # ---------------------------------------------------------------- life

    async def create(self, spec: ContainerSpec) -> None:
        host = self._host
        check_container(spec, host.capabilities)
        folder = host.folder(spec.id)
        async with self._lock(spec.id):
            try:
                record = creation.make_folder(host, spec)
            except FileExistsError:
                raise AlreadyExistsError(f"container {spec.id} exists already") from None
            try:
                folder.write(await self._make(host, spec, record))
            except BaseException as exc:
                with trio.move_on_after(_REMOVE_SECONDS, shield=True):
                    await take_down(host, folder)
                if isinstance(exc, OSError):
                    raise ProviderError(f"container {spec.id} could not be made: {exc}") from exc
                raise

    async def _make(self, host: Host, spec: ContainerSpec, record: Record) -> Record:
        folder = host.folder(spec.id)
        recovery.set_aside(host, spec.id)
        waiting = await run_in_own_thread(partial(creation.build, host, spec))
        if groups := host.cgroups.later_groups(spec.id):
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(host.cgroups.place, groups, waiting.child.pid)
        try:
            running = await let_go(waiting, folder)
        except CreateError as exc:
            failure = failures.explain(str(exc))
            if failure is None:
                raise ProviderError(f"crun could not make container {spec.id}: {exc}") from exc
            return attrs.evolve(record, phase=Phase.CREATED, failure=failure)
        return attrs.evolve(record, phase=Phase.CREATED, monitor=running.monitor, init=running.init)

    async def start(self, container: ContainerId) -> ContainerStatus:
        host = self._host
        async with self._lock(container):
            folder, record = self._find(container)
            if record.phase is not Phase.CREATED or folder.read_exit() is not None:
                status = await states.status(host, folder, record)
                if status.state is ContainerState.RUNNING:
                    return status
                raise ProviderError(f"container {container} has run already; make it anew to run it again")
            if record.failure or record.init is None:
                raise self._refused(folder, record)
            folder.write(attrs.evolve(record, phase=Phase.STARTING))
            with trio.CancelScope(shield=True):  # milliseconds; half a start could not be told from a whole one
                pipe = starting.start_pipe(host.crun_root, container)
                outcome = await run_in_own_thread(partial(starting.start, pipe, record.init))
                record = attrs.evolve(record, phase=Phase.STARTED, started_at=time.time())
                folder.write(record)
            if outcome is starting.Outcome.ENDED:
                raise await self._not_executed(folder, record)
            return await states.status(host, folder, record, running=True)

    def _refused(self, folder: Folder, record: Record) -> ProviderError:
        """crun found while it made the container that its program cannot be executed."""
        failure = record.failure or Failure(code=255, message="it has no process")
        folder.write_exit(failure.code)
        self._refusals.unpark_all()
        return ProviderError(f"container {record.id} could not be started: {failure.message}")

    async def _not_executed(self, folder: Folder, record: Record) -> ProviderError:
        """The process ended before its program began; crun has left the reason at the end of the log."""
        status = await states.await_exit(self._host, folder, record)
        words = await trio.to_thread.run_sync(failures.last_words, Path(record.log_path))
        failure = failures.explain(words)
        if failure is None:
            return ProviderError(f"container {record.id} ended with {status.code} before its program ran: {words}")
        folder.write_exit(failure.code, replace=True)
        return ProviderError(f"container {record.id} could not be started: {failure.message}")

    async def wait(self, container: ContainerId) -> ExitStatus:
        folder, record = self._find(container)
        while record.failure and folder.path.exists() and folder.read_exit() is None:
            await self._refusals.park()
        return await states.await_exit(self._host, folder, record)

    async def stop(self, container: ContainerId, *, grace_seconds: float) -> ExitStatus:
        async with self._lock(container):
            folder, record = self._find(container)
            if record.init is None:
                self._refused(folder, record)
            # Before it was started nothing of the image runs: there is nobody to be asked politely.
            elif record.phase is Phase.CREATED:
                send_signal(record.init, signal.SIGKILL)
            elif folder.read_exit() is None:
                send_signal(record.init, signal.Signals[record.stop_signal])
        # The lock is not held while we wait: whoever has less patience may come with a shorter grace.
        with trio.move_on_after(grace_seconds):
            return await states.await_exit(self._host, folder, record)
        if record.init is not None:
            send_signal(record.init, signal.SIGKILL)
        return await states.await_exit(self._host, folder, record)

    async def remove(self, container: ContainerId) -> None:
        if not is_container_id(container):
            return
        folder = self._host.folder(container)
        async with self._lock(container):
            if not folder.path.exists():
                return
            with contextlib.suppress(CorruptError):
                if record := folder.read():
                    folder.write(attrs.evolve(record, phase=Phase.REMOVING))
            await take_down(self._host, folder)
            self._refusals.unpark_all()

    # ------------------------------------------------------------- questions

    async def list(self) -> Sequence[ContainerStatus]:
        found = []
        for folder in self._host.folders():
            record = folder.read()
            if record is not None and record.phase not in (Phase.CREATING, Phase.REMOVING):
                with contextlib.suppress(NotFoundError):  # removed meanwhile
                    found.append(await states.status(self._host, folder, record))
        return found

    def exec(self, container: ContainerId, spec: ExecSpec) -> AbstractAsyncContextManager[ExecSession]:
        return self._exec(container, spec)

    @asynccontextmanager
    async def _exec(self, container: ContainerId, spec: ExecSpec) -> AsyncIterator[ExecSession]:
        host = self._host
        check_exec(container, spec, host.capabilities)
        folder, record = self._find(container)
        status = await states.status(host, folder, record)
        if status.state is not ContainerState.RUNNING or record.init is None:
            raise UnavailableError(f"container {container} is {status.state.value}, not running")
        async with open_session(host, folder, record.init, spec) as session:
            yield session

    def _find(self, container: ContainerId) -> tuple[Folder, Record]:
        """Raises NotFoundError for what is not there, or not yet, or no more."""
        if is_container_id(container):
            folder = self._host.folder(container)
            record = folder.read()
            if record is not None and record.phase not in (Phase.CREATING, Phase.REMOVING):
                return folder, record
        raise NotFoundError(f"container {container!r} does not exist")

    def _lock(self, container: ContainerId) -> trio.Lock:
        return self._locks.setdefault(container, trio.Lock())
