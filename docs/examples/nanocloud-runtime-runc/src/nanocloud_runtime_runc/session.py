"""One more process in a container, by ``runc exec``: its streams, its secrets, its end.

runc stays for as long as the process runs, hands the streams on and ends with the process's exit code. What runc reads
and writes besides (the description of the process, which holds the environment; its log) are memory files.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import struct
import termios
import tty
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager

import trio

from nanocloud.errors import ProviderError
from nanocloud.providers.runtime import ExecSession, ExecSpec
from nanocloud.terminals import TerminalInput, TerminalOutput
from nanocloud_runtime_runc import oci
from nanocloud_runtime_runc.folder import Folder
from nanocloud_runtime_runc.processes import Process, children
from nanocloud_runtime_runc.programs import Program, content, memory_file
from nanocloud_runtime_runc.runc import NoProgramError, Runc, errors_in, refusal
from nanocloud_runtime_runc.users import User, find_user

_RUNC_FAILED = (1, 255)
_KILLED = 128 + signal.SIGKILL
_AGAIN_SECONDS = 0.001
_FIRST_SECRET = 3


@asynccontextmanager
async def open_session(runc: Runc, folder: Folder, spec: ExecSpec) -> AsyncIterator[ExecSession]:
    """Run the process; on leaving, kill it if it still runs."""
    user = None if spec.user is None else find_user(folder.rootfs, spec.user)
    process = oci.process(spec, folder.configuration()["process"], user)
    owner = User(process["user"]["uid"], process["user"]["gid"])
    with ExitStack() as held:

        def kept(data: bytes = b"", owner: User = User()) -> int:  # noqa: B008 - frozen
            descriptor = memory_file(data, uid=owner.uid, gid=owner.gid)
            held.callback(os.close, descriptor)
            return descriptor

        given = dict(enumerate((kept(secret, owner) for secret in spec.secrets), _FIRST_SECRET))
        described = _FIRST_SECRET + len(given)  # runc hands on what is below
        log = kept()
        given |= {described: kept(json.dumps(process).encode()), described + 1: log}
        argv = runc.command("exec", f"--process=/dev/fd/{described}", f"--preserve-fds={len(spec.secrets)}", folder.id)
        argv[1:1] = [f"--log=/dev/fd/{described + 1}", "--log-format=json"]
        session = _Terminal(argv, given, log, spec) if spec.terminal else _Pipes(argv, given, log, spec)
        try:
            yield session
        finally:
            with trio.CancelScope(shield=True):
                await session.end()


class _Session(ExecSession):
    def __init__(self, argv: Sequence[str], given: dict[int, int], log: int) -> None:
        self._log = log
        self._killed = False
        self._program = Program(argv, given)

    async def wait(self) -> int:
        code = await self._program.wait()
        return _KILLED if self._killed else self._code_of(code)

    def _code_of(self, code: int) -> int:
        if code in _RUNC_FAILED and (error := self._refusal()) is not None:
            return error.code if isinstance(error, NoProgramError) else code
        return code

    def _refusal(self) -> ProviderError | None:
        """Why runc has run nothing; None where the code is the program's own."""
        errors = errors_in(content(self._log))
        return refusal("exec", errors[-1]) if errors else None

    async def end(self) -> None:
        """Kill what still runs and close the streams.

        What a process that has ended by itself left in the background goes on; of one that is killed its group goes.
        runc is stopped first: it starts nothing any more then, and when its children are gone it can go, too. Killed
        alone it would leave the process behind; left alone it would wait for whoever holds the streams.
        """
        runc = Process.find(self._program.pid)
        if runc is not None and self._program.code is None:
            runc.send(signal.SIGSTOP)
            self._killed = True
            while runc.is_alive:
                if _has_no_children(runc) and runc.is_stopped:
                    break
                await trio.sleep(_AGAIN_SECONDS)
            self._program.send(signal.SIGKILL)
        await self._program.wait()
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                await trio.aclose_forcefully(stream)


def _has_no_children(runc: Process) -> bool:
    """Whether there are none; those that there are get killed, so that the next look may find none."""
    found = list(children(runc.pid))
    for process in found:
        process.kill_group()
    return not found


class _Pipes(_Session):
    def __init__(self, argv: Sequence[str], given: dict[int, int], log: int, spec: ExecSpec) -> None:
        theirs, ours = {}, {}
        if spec.stdin:
            theirs[0], ours[0] = os.pipe()
        for number in (1, 2):
            ours[number], theirs[number] = os.pipe()
        self.stdin = trio.lowlevel.FdStream(ours[0]) if spec.stdin else None
        self.stdout, self.stderr = trio.lowlevel.FdStream(ours[1]), trio.lowlevel.FdStream(ours[2])
        try:
            super().__init__(argv, given | theirs, log)
        finally:
            for descriptor in theirs.values():
                os.close(descriptor)

    async def resize(self, *, rows: int, columns: int) -> None:
        await trio.lowlevel.checkpoint()


class _Terminal(_Session):
    """runc makes the process's terminal in the container, and copies between it and this one of ours."""

    def __init__(self, argv: Sequence[str], given: dict[int, int], log: int, spec: ExecSpec) -> None:
        self._master, slave = os.openpty()
        tty.setraw(slave)  # one terminal that interprets is enough; runc does the same, but later
        self.stdin = TerminalInput(os.dup(self._master)) if spec.stdin else None
        self.stdout, self.stderr = TerminalOutput(self._master), None
        try:
            super().__init__(argv, given | dict.fromkeys((0, 1, 2), slave), log)
        finally:
            os.close(slave)

    async def resize(self, *, rows: int, columns: int) -> None:
        await trio.lowlevel.checkpoint()
        with contextlib.suppress(OSError):  # it is closed already
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            self._program.send(signal.SIGWINCH)  # runc hands the size on
