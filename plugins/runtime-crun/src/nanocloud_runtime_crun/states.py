"""What a container is doing, by its exit file and the kernel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import trio

from nanocloud.errors import NotFoundError
from nanocloud.providers.runtime import ContainerId, ContainerState, ContainerStatus, ExitStatus
from nanocloud_runtime_crun.processes import is_alive, send_signal, wait_gone
from nanocloud_runtime_crun.record import Phase

if TYPE_CHECKING:
    from nanocloud_runtime_crun.host import Host
    from nanocloud_runtime_crun.record import Folder, Record

_SIGKILL = 9
MONITOR_LOST = 255


async def status(host: Host, folder: Folder, record: Record, *, running: bool = False) -> ContainerStatus:
    """``running``: it was seen running just now, so what it was then is told."""
    if running:
        return _status(record, ContainerState.RUNNING, None)
    ended = _exit(host, folder)
    if ended is None and record.monitor and record.init:
        if is_alive(record.init) and is_alive(record.monitor):
            started = record.phase is Phase.STARTED
            return _status(record, ContainerState.RUNNING if started else ContainerState.CREATED, None)
        # The monitor is about to write the exit file, or never will.
        ended = await await_exit(host, folder, record)
    if ended is None:
        return _status(record, ContainerState.CREATED, None)
    return _status(record, ContainerState.EXITED, ended)


def _status(record: Record, state: ContainerState, ended: ExitStatus | None) -> ContainerStatus:
    return ContainerStatus(
        id=ContainerId(record.id),
        labels=record.labels,
        state=state,
        pid=record.init.pid if record.init and state is not ContainerState.EXITED else None,
        created_at=record.created_at,
        started_at=record.started_at,
        exit=ended,
        log_path=Path(record.log_path),
    )


def _exit(host: Host, folder: Folder) -> ExitStatus | None:
    written = folder.read_exit()
    if written is None:
        return None
    code, finished_at = written
    return ExitStatus(code=code, finished_at=finished_at, out_of_memory=host.cgroups.out_of_memory(folder.id))


async def await_exit(host: Host, folder: Folder, record: Record) -> ExitStatus:
    """Wait for the end of the monitor, whose last deed is the exit file.

    A monitor that was killed leaves none; then nobody holds the container's output any more and nobody will ever know
    how it ends, so it is ended now.

    Raises:
        NotFoundError: the container was removed meanwhile.
    """
    if record.monitor is not None:
        await wait_gone(record.monitor)
    else:
        await trio.lowlevel.checkpoint()
    if record.init is not None and folder.path.exists() and folder.read_exit() is None:
        send_signal(record.init, _SIGKILL)
        await wait_gone(record.init)
        if folder.exit_dir.exists():
            folder.write_exit(MONITOR_LOST)
    ended = _exit(host, folder)
    if ended is None:
        raise NotFoundError(f"container {record.id} was removed")
    return ended
