"""End an exec session's processes, with everything they have started.

``crun exec`` is the process's parent and reaps it. So it is stopped first: from then on it starts nothing more and no
process number can be reused under our hands. Then everything below it is killed, and all that shares a session with
that, round by round until a round finds nothing new. Then crun goes on, to reap what it has started and end; where it
had started nothing yet it is killed. Processes that left the session on purpose (daemons) are the container's own
affair.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import trio

from nanocloud_runtime_crun.processes import (
    Process,
    command_line,
    descendants,
    every_pid,
    identify,
    kill_all,
    read_stat,
    send_signal,
    wait_gone,
)
from nanocloud_runtime_crun.trees import remove_tree

if TYPE_CHECKING:
    from nanocloud_runtime_crun.host import Host
    from nanocloud_runtime_crun.record import Folder


_REAP_SECONDS = 5.0


async def end(host: Host, container: str, crun: Process) -> bool:
    """Kill the session of ``crun``; returns when ``crun`` has ended, True if anything had to be killed."""
    killed = await trio.to_thread.run_sync(_kill, host, container, crun)
    with trio.move_on_after(_REAP_SECONDS):
        await wait_gone(crun)
    send_signal(crun, signal.SIGKILL)
    await wait_gone(crun)
    return killed


def _kill(host: Host, container: str, crun: Process) -> bool:
    if not send_signal(crun, signal.SIGSTOP):
        return False
    while (own := read_stat(crun.pid)) and own.state not in "TtZX":
        os.sched_yield()  # on another processor it finishes the system call it is in: microseconds
    killed: set[Process] = set()
    below = descendants([crun.pid])
    # crun is in the server's session; what it executes begins one of its own.
    sessions = {stat.session for pid in below if (stat := read_stat(pid))} - {own.session if own else 0, 0}
    while kill_all(below, killed):
        mates = {pid for pid in host.cgroups.members(container) if (s := read_stat(pid)) and s.session in sessions}
        below = descendants([crun.pid]) | mates
    send_signal(crun, signal.SIGCONT if killed else signal.SIGKILL)
    return bool(killed)


async def end_sessions(host: Host, folder: Folder) -> None:
    """End what a server that is no more has left running in this container."""
    if not folder.exec_dir.exists():
        return
    for path in sorted(folder.exec_dir.iterdir()):
        text = os.fspath(path)
        for pid in every_pid():
            program, *words = command_line(pid) or [""]
            if program == os.fspath(host.crun) and any(text in word for word in words):
                crun = identify(pid)
                if crun is not None:
                    await end(host, folder.id, crun)
        remove_tree(path)
