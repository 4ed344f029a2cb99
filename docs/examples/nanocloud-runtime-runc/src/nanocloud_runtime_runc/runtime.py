"""The provider: containers by runc, watched over by conmon. Nothing is known here that a restart would forget.

One lock an id is held for what changes a container, and never while its end is waited for: a second ``stop`` with a
shorter grace gets through.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from weakref import WeakValueDictionary

import attrs
import trio

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
    ProjectedFile,
    RuntimeProvider,
)
from nanocloud_runtime_runc import capabilities, checks, mounts, oci, overlay, seccomp
from nanocloud_runtime_runc.cgroups import Groups
from nanocloud_runtime_runc.conmon import Conmon
from nanocloud_runtime_runc.folder import Folder
from nanocloud_runtime_runc.leftovers import Undertaker, log
from nanocloud_runtime_runc.programs import SEARCH_PATH, run
from nanocloud_runtime_runc.record import Phase, Record, Refusal
from nanocloud_runtime_runc.runc import NOT_EXECUTABLE, NoProgramError, Runc, refusal
from nanocloud_runtime_runc.session import open_session
from nanocloud_runtime_runc.trees import remove_tree
from nanocloud_runtime_runc.users import find_user

_LOST = 255
_UNDO_SECONDS = 60
_UNTIL_EXEC_SECONDS = 0.0005
_LONGEST_ENTRY = 8192
_NOT_YET = "runc:"
"""What a process calls itself until runc has become the container's program."""


@attrs.frozen(kw_only=True)
class Settings:
    """The table ``[runtime-runc]``."""

    cgroup: str = "/nanocloud-runc"
    """Parent of the containers' control groups; two nodes on a machine need two."""


class RuncRuntime(RuntimeProvider, Removable):
    def __init__(self, settings: Settings, *, state_dir: Path, run_dir: Path) -> None:
        """``state_dir`` takes writable layers, ``run_dir`` all else; both are this provider's alone."""
        self._state, self._run = state_dir, run_dir
        self._containers = run_dir / "containers"
        self._runc = Runc(_program("runc"), run_dir / "runc")
        self._groups = Groups("/" + settings.cgroup.strip("/"))
        self._conmon = Conmon(_program("conmon"), self._runc, self._groups)
        self._undertaker = Undertaker(self._runc, self._groups, state_dir / "layers", state_dir / "removed")
        self._locks: WeakValueDictionary[str, trio.Lock] = WeakValueDictionary()
        self._changed = trio.lowlevel.ParkingLot()
        """For who waits for a container without processes."""

    @property
    def name(self) -> str:
        return "runc"

    # ---- the provider's life

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        if os.geteuid() != 0:
            raise ProviderError("the runtime runc needs root")
        for program, package in ((self._runc.program, "runc"), (self._conmon.program, "conmon")):
            if not os.access(program, os.X_OK):
                raise ProviderError(f"the runtime runc needs {program}", hint=f"apt-get install {package}")
        await trio.to_thread.run_sync(self._make_folders)
        await self._put_in_order()
        self._undertaker.set_aside({folder.id for folder in self._folders()})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._empty_aside)
            yield
            nursery.cancel_scope.cancel()

    async def _empty_aside(self) -> None:
        await trio.to_thread.run_sync(self._undertaker.empty_aside, abandon_on_cancel=True)

    def _make_folders(self) -> None:
        for path in (self._run, self._undertaker.stores, self._undertaker.aside):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not mounts.is_tmpfs(self._run):  # secrets are written below: they must never reach a disk
            mounts.mount("tmpfs", self._run, "mode=0700", mounts.NOSUID | mounts.NODEV | mounts.NOEXEC)
        for path in (self._containers, self._runc.root):
            path.mkdir(mode=0o700, exist_ok=True)

    async def _put_in_order(self) -> None:
        """One container that will not go must not keep the others from their server."""
        for folder in self._folders():
            known = folder.record()
            if known is None or known.phase is not Phase.CREATED:
                try:
                    await self._undertaker.take_down(folder)
                except (OSError, ProviderError) as exc:
                    log.warning("container %s, which a killed server left half made, stays: %s", folder.id, exc)
        await self._undertaker.end_sessions(self._folders())

    async def purge(self) -> None:
        if self._containers.exists():
            for folder in self._folders():
                await self._undertaker.take_down(folder)
        if self._run.exists():
            await trio.to_thread.run_sync(mounts.unmount, self._run)
        for path in (self._run, self._state):
            await trio.to_thread.run_sync(remove_tree, path)
        self._groups.remove_parent()

    # ---- a container's life

    async def create(self, spec: ContainerSpec) -> None:
        checks.check(spec)
        folder = self._folder(spec.id)
        async with self._lock(spec.id):
            try:
                folder.claim()
            except FileExistsError:
                raise AlreadyExistsError(f"container {spec.id} exists already") from None
            try:
                await self._make(spec, folder)
            except BaseException as exc:  # a cancelled create leaves nothing behind, either
                with trio.move_on_after(_UNDO_SECONDS, shield=True):
                    await self._undertaker.take_down(folder)
                if isinstance(exc, OSError):
                    raise ProviderError(f"container {spec.id} could not be made: {exc}") from exc
                raise

    async def _make(self, spec: ContainerSpec, folder: Folder) -> None:
        making = Record(
            phase=Phase.CREATING,
            labels=dict(spec.labels),
            log_path=spec.log_path,
            stop_signal=signal.Signals[spec.stop_signal],
            created_at=time.time(),
        )
        folder.write_record(making)
        spec.log_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        store = self._undertaker.stores / spec.id
        await trio.to_thread.run_sync(overlay.mount_root, spec.layers, store, folder.rootfs)
        for number, file in enumerate(spec.files):
            _project(file, folder.files / str(number))
        folder.write_configuration(oci.configuration(spec, self._surroundings(spec, folder)))
        try:
            monitor, first = await self._conmon.create(spec, folder)
        except NoProgramError as exc:
            # The contract has this told by ``start``: the container is made, and its program cannot be run.
            made = attrs.evolve(making, phase=Phase.CREATED, refusal=Refusal(exc.code, str(exc)))
        else:
            made = attrs.evolve(making, phase=Phase.CREATED, monitor=monitor, first=first)
        folder.write_record(made)

    def _surroundings(self, spec: ContainerSpec, folder: Folder) -> oci.Surroundings:
        what = f"container {spec.id}"
        given = capabilities.held() if spec.security.privileged else spec.security.capabilities
        allowed = capabilities.checked(given, what)
        try:
            user = find_user(folder.rootfs, spec.user)
        except InvalidError as exc:
            raise InvalidError(f"{what}: {exc}") from exc
        return oci.Surroundings(
            folder=folder,
            user=user,
            capabilities=allowed,
            seccomp=seccomp.filter_of(spec.security, allowed, what),
            cgroup=self._groups.path_of(spec.id),
            limits_swap=self._groups.limits_swap(),
        )

    async def start(self, container: ContainerId) -> ContainerStatus:
        async with self._lock(container):
            folder, known = self._find(container)
            status = await self._status(folder, known)
            if status.state is ContainerState.RUNNING:
                return status
            if status.state is ContainerState.EXITED:
                raise ProviderError(f"container {container} has ended; it runs once")
            if known.refusal is not None:
                self._end_without_processes(folder, known.refusal)
                raise ProviderError(known.refusal.reason)
            with trio.CancelScope(shield=True):  # half a start could not be told from a whole one
                started = attrs.evolve(known, started_at=time.time())
                folder.write_record(started)
                await run(*self._runc.command("start", container))
                await self._executed(folder, started)
            return await self._status(folder, started)

    async def _executed(self, folder: Folder, known: Record) -> None:
        """Until runc has become the program; nobody tells, and it is a matter of microseconds.

        Raises:
            ProviderError: execve has failed.
        """
        assert known.first is not None
        while known.first.command_name.startswith(_NOT_YET):  # noqa: ASYNC110
            await trio.sleep(_UNTIL_EXEC_SECONDS)
        if known.first.is_alive:
            return
        ended = await self._ended(folder, known)
        words = _last_line(known.log_path)
        if ended.code == 1 and words.startswith("exec /"):
            error = refusal(f"container {folder.id}", words)
            folder.write_exit(error.code if isinstance(error, NoProgramError) else NOT_EXECUTABLE)
            raise error

    def _end_without_processes(self, folder: Folder, why: Refusal) -> None:
        folder.write_exit(why.code)
        self._changed.unpark_all()

    async def wait(self, container: ContainerId) -> ExitStatus:
        folder, known = self._find(container)
        while known.refusal is not None and folder.exit() is None:
            await self._changed.park()
            folder, known = self._find(container)
        return await self._ended(folder, known)

    async def stop(self, container: ContainerId, *, grace_seconds: float) -> ExitStatus:
        async with self._lock(container):
            folder, known = self._find(container)
            if known.first is not None:
                known.first.send(known.stop_signal if known.started_at else signal.SIGKILL)
            elif known.refusal is not None and folder.exit() is None:
                self._end_without_processes(folder, known.refusal)
        with trio.move_on_after(grace_seconds):
            return await self._ended(folder, known)
        if known.first is not None:
            known.first.send(signal.SIGKILL)  # the first process of a pid namespace takes all others along
        return await self._ended(folder, known)

    async def remove(self, container: ContainerId) -> None:
        async with self._lock(container):
            folder = self._folder(container)
            if checks.is_id(container) and folder.path.exists():
                await self._undertaker.take_down(folder)
                self._changed.unpark_all()
            else:
                await trio.lowlevel.checkpoint()

    async def list(self) -> Sequence[ContainerStatus]:
        await trio.lowlevel.checkpoint()
        found = []
        for folder in self._folders():
            known = folder.record()
            if known is not None and known.phase is Phase.CREATED:
                with suppress(NotFoundError):  # it was removed meanwhile
                    found.append(await self._status(folder, known))
        return found

    def exec(self, container: ContainerId, spec: ExecSpec) -> AbstractAsyncContextManager[ExecSession]:
        return self._exec(container, spec)

    @asynccontextmanager
    async def _exec(self, container: ContainerId, spec: ExecSpec) -> AsyncIterator[ExecSession]:
        folder, known = self._find(container)
        status = await self._status(folder, known)
        if status.state is not ContainerState.RUNNING:
            raise UnavailableError(f"container {container} is {status.state.value}, not running")
        what = f"exec in container {container}"
        if not spec.argv or not spec.argv[0]:
            raise InvalidError(f"{what}: argv names no program")
        capabilities.checked(spec.capabilities or (), what)
        async with open_session(self._runc, folder, spec) as session:
            yield session

    # ---- what the kernel says

    async def _status(self, folder: Folder, known: Record) -> ContainerStatus:
        ended = folder.exit()
        if ended is None and known.refusal is None and not _holds_on(known):
            ended = await self._ended(folder, known)
        running = known.started_at is not None and known.first is not None and not _waits(known)
        state = ContainerState.RUNNING if running else ContainerState.CREATED
        return ContainerStatus(
            id=folder.id,
            labels=known.labels,
            state=ContainerState.EXITED if ended else state,
            pid=known.first.pid if known.first is not None and not ended else None,
            created_at=known.created_at,
            started_at=known.started_at if running or ended else None,
            exit=self._explained(folder, ended) if ended else None,
            log_path=known.log_path,
        )

    async def _ended(self, folder: Folder, known: Record) -> ExitStatus:
        """Wait for the monitor, whose last deed is the exit code. Where it was killed itself, nobody knows the code.

        Raises:
            NotFoundError: the container was removed meanwhile.
        """
        if known.monitor is not None:
            await known.monitor.ended()
        ended = folder.exit()
        if ended is None and known.first is not None and folder.record() is not None:
            await self._groups.empty(folder.id)  # nobody holds its output any more
            with suppress(FileNotFoundError):
                folder.write_exit(_LOST)
            ended = folder.exit()
        if ended is None:
            raise NotFoundError(f"container {folder.id} was removed")
        return self._explained(folder, ended)

    def _explained(self, folder: Folder, ended: ExitStatus) -> ExitStatus:
        return attrs.evolve(ended, out_of_memory=self._groups.out_of_memory(folder.id))

    # ---- folders and locks

    def _folder(self, container: str) -> Folder:
        return Folder(self._containers / container)

    def _folders(self) -> Sequence[Folder]:
        return [Folder(path) for path in sorted(self._containers.iterdir())]

    def _find(self, container: ContainerId) -> tuple[Folder, Record]:
        folder = self._folder(container)
        known = folder.record() if checks.is_id(container) else None
        if known is None or known.phase is not Phase.CREATED:
            raise NotFoundError(f"container {container!r} does not exist")
        return folder, known

    def _lock(self, container: str) -> trio.Lock:
        return self._locks.setdefault(container, trio.Lock())


def _holds_on(known: Record) -> bool:
    """Whether the container lives and somebody watches over it."""
    return all(process is not None and process.is_alive for process in (known.monitor, known.first))


def _waits(known: Record) -> bool:
    return known.first is not None and known.first.command_name.startswith(_NOT_YET)


def _program(name: str) -> str:
    return shutil.which(name, path=SEARCH_PATH) or f"/usr/bin/{name}"


def _project(file: ProjectedFile, path: Path) -> None:
    path.touch(mode=0o600)
    path.write_bytes(file.content)
    os.chown(path, file.uid, file.gid)
    path.chmod(file.mode)


def _last_line(log_path: Path) -> str:
    """The text of a log's last entry: a late execve that fails has runc say so there."""
    try:
        with log_path.open("rb") as file:
            file.seek(max(0, log_path.stat().st_size - _LONGEST_ENTRY))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return lines[-1].split(" ", 3)[-1] if lines else ""
