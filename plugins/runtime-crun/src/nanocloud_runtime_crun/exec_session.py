"""One more process in a running container, by ``crun exec``.

Pipes are given to the process itself: no byte passes through crun. With a terminal, crun sends the master's descriptor
over a socket. What the process is to be (``process.json``, with its environment) and the secrets are memory files:
nothing of them has a name. Each session has a folder ``exec/<n>`` in its container's folder for as long as it runs;
a server that finds one left over ends its processes (``exec_end``).
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import signal
import struct
import termios
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from nanocloud.errors import ProviderError, UnavailableError
from nanocloud.providers.runtime import ExecSession
from nanocloud.terminals import TerminalInput, TerminalOutput
from nanocloud_runtime_crun import failures, users
from nanocloud_runtime_crun import spec as oci
from nanocloud_runtime_crun._spawn import spawn
from nanocloud_runtime_crun._threads import run_in_own_thread
from nanocloud_runtime_crun.console import Console
from nanocloud_runtime_crun.exec_absent import AbsentProgram
from nanocloud_runtime_crun.exec_end import end
from nanocloud_runtime_crun.processes import identify
from nanocloud_runtime_crun.rootdir import is_absent
from nanocloud_runtime_crun.trees import remove_tree
from nanocloud_runtime_crun.users import User
from nanocloud_runtime_crun.view import enter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from nanocloud.providers.runtime import ExecSpec
    from nanocloud_runtime_crun._spawn import Child
    from nanocloud_runtime_crun.host import Host
    from nanocloud_runtime_crun.processes import Process
    from nanocloud_runtime_crun.record import Folder

_FIRST_SECRET = 3
_KILLED = 128 + signal.SIGKILL
_MAX_LOG_BYTES = 16384
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class CrunSession(ExecSession):
    """See ``nanocloud.providers.runtime.ExecSession``."""

    def __init__(self, work: Path) -> None:
        self.child: Child | None = None
        self.killed = False
        self._log = work / "crun.log"
        self._terminal: int | None = None
        self.stdin = None
        self.stderr = None

    async def resize(self, *, rows: int, columns: int) -> None:
        await trio.lowlevel.checkpoint()
        if self._terminal is not None:
            size = struct.pack("HHHH", min(max(rows, 1), 0xFFFF), min(max(columns, 1), 0xFFFF), 0, 0)
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)

    async def wait(self) -> int:
        assert self.child is not None
        code = await self.child.wait()
        if self.killed:
            return _KILLED  # crun does not always tell what became of a process that died while crun was stopped
        # crun says on standard error why it executed nothing, but ends with 1 for every reason.
        words = self.complaint() if code else ""
        return failures.exit_code(words) if words else code

    def complaint(self) -> str:
        """Why crun gave up, in its own words: its log has one JSON object a line. Empty where it did not."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            with self._log.open("rb") as file:
                lines = file.read(_MAX_LOG_BYTES).decode(errors="replace").splitlines()
            last = json.loads(lines[-1]) if lines else {}
            return str(last["msg"]) if last.get("level") == "error" else ""
        return ""

    def make_pipes(self, theirs: contextlib.ExitStack, *, stdin: bool) -> dict[int, int]:
        """Keep our ends as streams; return the process's ends by its numbers, which ``theirs`` closes."""
        given = {}
        if stdin:
            given[0], ours = os.pipe2(os.O_CLOEXEC)
            theirs.callback(os.close, given[0])
            self.stdin = trio.lowlevel.FdStream(ours)
        for number in (1, 2):
            ours, given[number] = os.pipe2(os.O_CLOEXEC)
            theirs.callback(os.close, given[number])
            if number == 1:
                self.stdout = trio.lowlevel.FdStream(ours)
            else:
                self.stderr = trio.lowlevel.FdStream(ours)
        return given

    def use_terminal(self, master: int, *, stdin: bool) -> None:
        self._terminal = master
        self.stdin = TerminalInput(os.dup(master)) if stdin else None
        self.stdout = TerminalOutput(os.dup(master))

    @property
    def has_terminal(self) -> bool:
        return self._terminal is not None

    async def close(self) -> None:
        """Let go of the streams; no byte is sent any more."""
        for stream in (self.stdin, getattr(self, "stdout", None), self.stderr):
            if stream is not None:
                with trio.CancelScope(shield=True) as scope:
                    scope.cancel()  # what would wait is left out
                    await stream.aclose()
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None


@asynccontextmanager
async def open_session(host: Host, folder: Folder, init: Process, spec: ExecSpec) -> AsyncIterator[ExecSession]:
    """Start the process; on leaving, end it with everything it started if it still runs."""
    with _open_root(folder, init) as root:
        user, process = _describe(folder, root, spec)
        absent = spec.argv[0].startswith("/") and is_absent(root, spec.argv[0])
    if absent:
        yield AbsentProgram(spec.argv[0], stdin=spec.stdin, terminal=spec.terminal)
        return
    async with contextlib.AsyncExitStack() as stack:
        work = _make_work_folder(folder)
        stack.callback(remove_tree, work)
        session = CrunSession(work)
        stack.push_async_callback(session.close)
        with contextlib.ExitStack() as theirs:
            secrets = [theirs.enter_context(_memory_file(secret, user)) for secret in spec.secrets]
            given = {_FIRST_SECRET + number: fd for number, fd in enumerate(secrets)}
            described = _FIRST_SECRET + len(secrets)
            given[described] = theirs.enter_context(_memory_file(json.dumps(process).encode(), User()))
            argv = ["exec", f"--process=/proc/self/fd/{described}", f"--preserve-fds={len(secrets)}"]
            console = theirs.enter_context(Console(work / "tty")) if spec.terminal else None
            if console is None:
                given |= session.make_pipes(theirs, stdin=spec.stdin)
            else:
                argv.append(f"--console-socket={console.path}")
            command = host.crun_command(f"--log={work / 'crun.log'}", "--log-format=json", *argv, folder.id)
            session.child = child = await run_in_own_thread(partial(_spawn_in_view, host, command, given))
            stack.push_async_callback(_leave, host, folder, session, child)
            if console is not None:
                await _take_terminal(console, session, folder, stdin=spec.stdin)
        yield session


async def _take_terminal(console: Console, session: CrunSession, folder: Folder, *, stdin: bool) -> None:
    """Wait for the terminal's master, unless crun ends without making one."""

    async def take() -> None:
        master = await console.receive()
        if master is not None:
            session.use_terminal(master, stdin=stdin)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await session.wait()
        if not console.was_called:  # what crun has sent before it ended would be there by now
            nursery.cancel_scope.cancel()
    if not session.has_terminal:
        raise ProviderError(f"exec in {folder.id} got no terminal: {session.complaint() or 'crun gave no reason'}")


async def _leave(host: Host, folder: Folder, session: CrunSession, child: Child) -> None:
    with trio.CancelScope(shield=True):
        if not child.ended:
            crun = identify(child.pid)
            if crun is not None:
                session.killed = await end(host, folder.id, crun)
            await child.wait()


def _spawn_in_view(host: Host, argv: list[str], descriptors: dict[int, int]) -> Child:
    enter(host.view.namespace)
    return spawn(argv, descriptors)


def _make_work_folder(folder: Folder) -> Path:
    try:
        for number in itertools.count():
            with contextlib.suppress(FileExistsError):
                work = folder.exec_dir / str(number)
                work.mkdir(mode=0o700)
                return work
    except FileNotFoundError:
        pass
    raise UnavailableError(f"container {folder.id} was removed")


@contextlib.contextmanager
def _memory_file(content: bytes, owner: User) -> Iterator[int]:
    """A descriptor of a file without a name, that only ``owner`` can open and nobody can change."""
    fd = os.memfd_create("nanocloud", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(fd, 0, os.SEEK_SET)
        os.fchmod(fd, 0o400)
        os.fchown(fd, owner.uid, owner.gid)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        yield fd
    finally:
        os.close(fd)


def _describe(folder: Folder, root: int, spec: ExecSpec) -> tuple[User, dict[str, Any]]:
    """The user, and ``process`` of the OCI configuration: the container's own, with what ``spec`` changes."""
    process: dict[str, Any] = folder.read_config()["process"]
    process |= {"terminal": spec.terminal, "args": list(spec.argv)}
    numbers = process["user"]
    user = User(numbers["uid"], numbers["gid"], tuple(numbers.get("additionalGids", ())))
    if spec.user is not None:
        user = users.resolve(root, spec.user)
        process["user"] = {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)}
    if spec.environment is not None:
        # crun takes an empty list for "as the container"; it sets HOME itself where it is missing.
        process["env"] = [f"{name}={value}" for name, value in spec.environment.items()] or [f"HOME={user.home}"]
    if spec.working_directory is not None:
        process["cwd"] = spec.working_directory
    if spec.capabilities is not None:
        process["capabilities"] = oci.capabilities(spec.capabilities, user.uid)
    elif spec.user is not None:
        process["capabilities"] = oci.capabilities(process["capabilities"]["bounding"], user.uid)
    return user, process


@contextlib.contextmanager
def _open_root(folder: Folder, init: Process) -> Iterator[int]:
    """The container's root folder as its processes see it now."""
    try:
        root = os.open(f"/proc/{init.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise UnavailableError(f"container {folder.id} has ended") from exc
    try:
        if identify(init.pid) != init:
            raise UnavailableError(f"container {folder.id} has ended")
        yield root
    finally:
        os.close(root)
