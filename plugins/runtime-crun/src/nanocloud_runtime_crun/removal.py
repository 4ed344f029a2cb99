"""Take a container down, whatever state a crash has left it in.

The order matters: processes first (a monitor that still works would make new things), then crun's state, the cgroups,
the writable layer, and the folder last. The folder is what says that something is left to do.

``crun delete`` is not asked: it would do no more than this (there are no hooks, and killing and cgroups are done
here), takes longer than all the rest, and refuses what a killed ``crun create`` has left.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from nanocloud.errors import CorruptError
from nanocloud_runtime_crun.processes import (
    Process,
    command_line,
    descendants,
    every_pid,
    identify,
    kill_all,
    wait_gone,
)
from nanocloud_runtime_crun.trees import remove_tree

if TYPE_CHECKING:
    from nanocloud_runtime_crun.host import Host
    from nanocloud_runtime_crun.record import Folder

_MONITOR_SECONDS = 10.0


async def take_down(host: Host, folder: Folder) -> None:
    """Remove the container and everything it holds but its log. Repeats safely."""
    await kill(host, folder)
    await trio.to_thread.run_sync(_remove_files, host, folder)


async def kill(host: Host, folder: Folder) -> None:
    """End every process of the container and its monitor, also those that a half-finished create has left."""
    try:
        record = folder.read()
    except CorruptError:
        record = None
    killed: set[Process] = set()
    if record and record.monitor and record.init:
        _kill(record.init, killed)
        # The monitor ends by itself when it has taken the exit code and the rest of the output.
        with trio.move_on_after(_MONITOR_SECONDS):
            await wait_gone(record.monitor)
        _kill(record.monitor, killed)
    else:
        while kill_all(await trio.to_thread.run_sync(_find_makers, host, folder), killed):
            pass
    # A process moves from the makers to the members, never back: asked in this order none is missed.
    while kill_all([*host.cgroups.makers(folder.id), *host.cgroups.members(folder.id)], killed):
        pass
    for process in killed:
        await wait_gone(process)


def _kill(process: Process, killed: set[Process]) -> None:
    if identify(process.pid) == process:
        kill_all([process.pid], killed)


def _find_makers(host: Host, folder: Folder) -> set[int]:
    """The conmon and crun processes that were started for the container's folder, and everything below them.

    For a monitor that its server had no time to put into a group.
    """
    path, programs = os.fspath(folder.path), (os.fspath(host.conmon), os.fspath(host.crun))
    roots = set()
    for pid in every_pid():
        program, *words = command_line(pid) or [""]
        if program in programs and any(word == path or word.startswith(path + "/") for word in words):
            roots.add(pid)
    return roots | descendants(roots)


def _remove_files(host: Host, folder: Folder) -> None:
    remove_tree(host.crun_root / folder.id)
    host.cgroups.remove(folder.id)
    if host.view.cover is not None:
        remove_tree(Path(f"/proc/self/fd/{host.view.cover}{host.cgroups.path(folder.id)}"))
    remove_tree(host.store(folder.id))
    remove_tree(folder.path)
