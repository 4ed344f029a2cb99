"""conmon: the small process that holds a container's output, writes its log and knows how it ended.

It is not the server's child (it forks away), so it goes on when the server dies. How it talks:

- descriptor ``_OCI_STARTPIPE``: it waits for one byte before it forks anything; meanwhile we put it into its cgroup.
- descriptor ``_OCI_SYNCPIPE``: one line of JSON: ``{"pid": N}`` when ``crun create`` has made the container, or
  ``{"pid": -1, "message": "..."}`` with crun's own words.
- the exit file: the exit code as text, written as a whole before conmon ends.

Source: conmon 2.1.6, conmon(8) and src/conmon.c.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import attrs
import trio

from nanocloud.errors import ProviderError
from nanocloud_runtime_crun._spawn import ENVIRONMENT, Child, spawn
from nanocloud_runtime_crun.processes import Process, identify

if TYPE_CHECKING:
    from nanocloud_runtime_crun.host import Host
    from nanocloud_runtime_crun.record import Folder

_MAX_ANSWER_BYTES = 65536


@attrs.frozen
class Starting:
    """A conmon that waits for its first byte."""

    child: Child
    answer: int
    start: int


@attrs.frozen
class Running:
    monitor: Process
    init: Process


class CreateError(ProviderError):
    """``crun create`` refused; the message is crun's."""


def command(host: Host, folder: Folder, *, log_name: str, log_limit: int, terminal: bool) -> list[str]:
    argv = [str(host.conmon), "--cid", folder.id, "--cuuid", folder.id, "--name", folder.id]
    argv += ["--runtime", str(host.crun), "--runtime-arg", f"--root={host.crun_root}"]
    argv += ["--runtime-arg", "--cgroup-manager=cgroupfs"]
    argv += ["--bundle", str(folder.path), "--full-attach", "--exit-dir", str(folder.exit_dir)]
    argv += ["--conmon-pidfile", str(folder.path / "monitor.pid"), "--container-pidfile", str(folder.path / "init.pid")]
    argv += ["--log-path", f"k8s-file:{folder.log}/{log_name}", "--log-size-max", str(log_limit), "--no-sync-log"]
    return [*argv, "--terminal"] if terminal else argv


def launch(argv: list[str], folder: Folder) -> Starting:
    """Start conmon in the calling thread's namespaces. It has done nothing yet when this returns."""
    os.chdir(folder.path)  # the thread's own: conmon leaves files where it stands
    fds: list[int] = []
    try:
        answer_read, answer_write = os.pipe2(os.O_CLOEXEC)
        fds += [answer_read, answer_write]
        start_read, start_write = os.pipe2(os.O_CLOEXEC)
        fds += [start_read, start_write]
        complaints = os.open(folder.path / "monitor.log", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fds.append(complaints)
        child = spawn(
            argv,
            {2: complaints, 3: answer_write, 4: start_read},
            ENVIRONMENT | {"_OCI_SYNCPIPE": "3", "_OCI_STARTPIPE": "4"},
        )
        fds = [answer_write, start_read, complaints]
        return Starting(child, answer_read, start_write)
    finally:
        for fd in fds:
            os.close(fd)


async def let_go(starting: Starting, folder: Folder) -> Running:
    """Let conmon make the container and wait for its word.

    Raises:
        CreateError: with crun's reason.
        ProviderError: conmon itself failed.
    """
    try:
        os.write(starting.start, b"\n")
    finally:
        os.close(starting.start)
    try:
        answer = await _read_to_end(starting.answer)
    finally:
        os.close(starting.answer)
    code = await starting.child.wait()
    if not answer:
        complaints = (folder.path / "monitor.log").read_text(errors="replace").strip()
        raise ProviderError(f"conmon ended with {code} before it made {folder.id}: {_clip(complaints) or 'no reason'}")
    return _parse(answer, folder)


async def _read_to_end(fd: int) -> bytes:
    """Up to the first newline: conmon keeps its end open for as long as the container lives."""
    os.set_blocking(fd, False)
    data = b""
    while b"\n" not in data and len(data) < _MAX_ANSWER_BYTES:
        await trio.lowlevel.wait_readable(fd)
        more = os.read(fd, _MAX_ANSWER_BYTES)
        if not more:
            break
        data += more
    return data


def _parse(answer: bytes, folder: Folder) -> Running:
    try:
        word = json.loads(answer)
        pid = word.get("pid", word.get("data"))
    except (ValueError, AttributeError) as exc:
        raise ProviderError(f"conmon's answer for {folder.id} is not understood: {_clip(repr(answer))}") from exc
    if not isinstance(pid, int) or pid <= 0:
        raise CreateError(_clip(str(word.get("message") or "crun gave no reason").strip()))
    monitor_pid = int((folder.path / "monitor.pid").read_text())
    monitor, init = identify(monitor_pid), identify(pid)
    if monitor is None or init is None:
        raise ProviderError(f"the first process of {folder.id} ended while it was being made")
    return Running(monitor, init)


def _clip(text: str) -> str:
    # crun writes a time before its words when it is not on a terminal; colours never.
    return " | ".join(line.strip() for line in text.splitlines() if line.strip())[:2000]
