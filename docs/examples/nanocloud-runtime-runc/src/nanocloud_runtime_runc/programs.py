"""Programs of the host: started with descriptors at the numbers that they expect, waited for without polling.

``posix_spawn`` puts a descriptor where a program wants it, and does not copy the server as fork does. A program gets
nothing of the server that is not named here: no environment, no descriptor, no ignored signal, and not its umask, which
is strict: what runc makes for a container (mount points, control groups) is for the container's users.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Mapping, Sequence

import trio

from nanocloud.errors import CommandError

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT = {"PATH": SEARCH_PATH, "LANG": "C.UTF-8"}
_WITH_UMASK = ("/bin/sh", "-c", 'umask 022; exec "$@"', "sh")
"""A umask is a process's, not a thread's: it cannot be set for a moment in a server that has threads."""
_FAR = 256
"""Sources are copied to numbers above this, so that no step of the list overwrites what a later one needs."""


class Program:
    """A running program. ``descriptors`` leads from its numbers to ours; 0, 1 and 2 are null where not named."""

    def __init__(self, argv: Sequence[str], descriptors: Mapping[int, int] | None = None, **environment: str) -> None:
        self._lock = trio.Lock()
        self.code: int | None = None
        """None while it runs; 128 + signal after a signal."""
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        held = [null]
        try:
            actions = []
            for number, source in ({0: null, 1: null, 2: null} | dict(descriptors or {})).items():
                held.append(fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, _FAR))
                actions.append((os.POSIX_SPAWN_DUP2, held[-1], number))
            self.pid = os.posix_spawn(
                _WITH_UMASK[0],
                [*_WITH_UMASK, *argv],
                _ENVIRONMENT | environment,
                file_actions=actions,
                setsigmask=[],
                setsigdef=[signal.SIGPIPE],  # Python ignores it, and what is ignored is inherited
            )
            self._descriptor = os.pidfd_open(self.pid)
        finally:
            for descriptor in held:
                os.close(descriptor)

    def send(self, number: int) -> None:
        if self.code is None:
            signal.pidfd_send_signal(self._descriptor, number)

    async def wait(self) -> int:
        """Its exit code; may be asked again, and by several."""
        async with self._lock:
            if self.code is None:
                await trio.lowlevel.wait_readable(self._descriptor)
                code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])  # noqa: ASYNC222 - only reaps
                os.close(self._descriptor)
                self.code = code if code >= 0 else 128 - code
        return self.code


async def run(*argv: str) -> None:
    """Run a program to its end. A cancelled caller does not wait, but the program is ended and reaped.

    Raises:
        CommandError: it ended with another code than 0; holds the last of what it said.
    """
    said = memory_file()
    try:
        program = Program(argv, {2: said})
        try:
            code = await program.wait()
        except trio.Cancelled:
            program.send(signal.SIGKILL)
            with trio.CancelScope(shield=True):
                await program.wait()
            raise
        if code:
            raise CommandError(argv, code, content(said))
    finally:
        os.close(said)


def memory_file(data: bytes = b"", *, uid: int = 0, gid: int = 0) -> int:
    """A file without a name, in memory alone. Opened again by ``/dev/fd/N`` its owner counts: nobody else reads it."""
    descriptor = os.memfd_create("nanocloud-runc", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.fchmod(descriptor, 0o400)
    os.fchown(descriptor, uid, gid)
    return descriptor


def content(descriptor: int) -> str:
    """What a program has written to a memory file; the last 64 KiB."""
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, 1 << 16, max(0, size - (1 << 16))).decode(errors="replace")
