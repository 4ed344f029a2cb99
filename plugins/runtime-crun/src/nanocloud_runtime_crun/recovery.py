"""What a server finds when it starts: containers of the one before, and what a crash or a reboot has left half-done."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import structlog
import trio

from nanocloud.errors import CorruptError, ProviderError
from nanocloud_runtime_crun import _syscalls as sys
from nanocloud_runtime_crun import starting, states
from nanocloud_runtime_crun.exec_end import end_sessions
from nanocloud_runtime_crun.record import Phase
from nanocloud_runtime_crun.removal import take_down
from nanocloud_runtime_crun.trees import remove_tree
from nanocloud_runtime_crun.view import mount_points

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nanocloud_runtime_crun.cgroups import Cgroups
    from nanocloud_runtime_crun.host import Host
    from nanocloud_runtime_crun.record import Folder

log = structlog.get_logger("runtime-crun")

_TRASH = ".trash"


async def recover(host: Host) -> None:
    """Adopt what lives, end what is half-made, set aside the layers of containers that are no more."""
    for folder in host.folders():
        try:
            await _recover_one(host, folder)
        except (OSError, ProviderError) as exc:
            # One container that cannot be removed must not keep the others from their server.
            log.error("container could not be put in order", container=folder.id, reason=str(exc))
    known = {folder.id for folder in host.folders()}
    for name in os.listdir(host.store_dir):
        if name != _TRASH and name not in known:
            set_aside(host, name)


async def _recover_one(host: Host, folder: Folder) -> None:
    try:
        record = folder.read()
    except CorruptError as exc:
        log.warning("container is removed, for its record cannot be read", container=folder.id, reason=str(exc))
        record = None
    if record is None or record.phase in (Phase.CREATING, Phase.REMOVING):
        await take_down(host, folder)
        return
    await end_sessions(host, folder)
    if record.phase is Phase.STARTING:
        # The server died while it started this one; whether the byte was written or not, now it is.
        starting.release(starting.start_pipe(host.crun_root, folder.id))
        record = attrs.evolve(record, phase=Phase.STARTED, started_at=time.time())
        folder.write(record)
    await states.status(host, folder, record)  # ends a container that has lost its monitor


def set_aside(host: Host, name: str) -> None:
    """Move a writable layer that belongs to nobody out of the way, to be removed in the background."""
    trash = host.store_dir / _TRASH
    trash.mkdir(mode=0o700, exist_ok=True)
    for number in itertools.count():
        target = trash / f"{name}.{number}"
        if not target.exists():
            with contextlib.suppress(FileNotFoundError):
                host.store(name).rename(target)
            return


@asynccontextmanager
async def collecting_stores(host: Host) -> AsyncIterator[None]:
    """Remove what was set aside, beside the body: millions of files take minutes, so nobody waits for it.

    A tree that is half removed when the server ends is taken up by the next one. When the context is left nobody
    touches the folders any more.
    """
    stop = threading.Event()
    thread = threading.Thread(target=_collect, args=(host.store_dir / _TRASH, stop), name="crun-trash", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(thread.join)


def _collect(trash: Path, stop: threading.Event) -> None:
    for name in os.listdir(trash) if trash.exists() else ():
        try:
            remove_tree(trash / name, stopped=stop.is_set)
        except OSError as exc:
            log.warning("writable layer could not be removed", path=str(trash / name), reason=str(exc))


def remove_everything(groups: Cgroups, runtime_dir: Path, store_dir: Path) -> None:
    """The last step of a purge: no container is left."""
    groups.remove_parent()
    remove_tree(store_dir)
    mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    if os.fspath(runtime_dir.resolve()) in mount_points(mounts):
        sys.umount(os.fspath(runtime_dir), sys.MNT_DETACH)
    remove_tree(runtime_dir)
