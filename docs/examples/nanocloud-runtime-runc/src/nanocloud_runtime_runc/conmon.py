"""conmon between this server and runc: it stays when the server goes, writes the log, and leaves the exit code.

It has runc make the container and answers on the descriptor in ``_OCI_SYNCPIPE`` with one line of JSON: ``{"pid": N}``,
or ``{"pid": -1, "message": "..."}`` with runc's words. It begins when a byte comes on ``_OCI_STARTPIPE``, so that it
can be moved out of the server's control group before it has children.

Source: conmon(8), version 2.1.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import attrs
import trio

from nanocloud.errors import ProviderError
from nanocloud.providers.runtime import ContainerSpec
from nanocloud_runtime_runc.cgroups import Groups
from nanocloud_runtime_runc.folder import Folder
from nanocloud_runtime_runc.processes import Process
from nanocloud_runtime_runc.programs import Program, content, memory_file
from nanocloud_runtime_runc.runc import Runc, refusal

_MOST_BYTES = 1 << 16


@attrs.frozen
class Conmon:
    program: str
    runc: Runc
    groups: Groups

    async def create(self, spec: ContainerSpec, folder: Folder) -> tuple[Process, Process]:
        """Have the container made; returns the monitor, and the first process, which waits to be started.

        Raises:
            NoProgramError: runc has looked for the program.
            ProviderError: anything else that runc or conmon said.
        """
        what = f"container {spec.id}"
        with ExitStack() as held:
            complaints = memory_file()
            held.callback(os.close, complaints)
            answers, theirs = os.pipe()
            stream = trio.lowlevel.FdStream(answers)
            with _pipe() as (waits, go):
                try:
                    descriptors = {2: complaints, 3: theirs, 4: waits}
                    child = Program(self._command(spec, folder), descriptors, _OCI_SYNCPIPE="3", _OCI_STARTPIPE="4")
                finally:
                    os.close(theirs)
                self.groups.adopt_monitor(child.pid, spec.id)
                os.write(go, b"\n")
            async with stream:
                answer = await _first_line(stream)
            await child.wait()
            if not answer:
                raise ProviderError(f"{what}: conmon failed: {' '.join(content(complaints).split())[-500:]}")
        found = json.loads(answer)
        if found.get("pid", -1) <= 0:
            raise refusal(what, str(found.get("message", "")))
        monitor, first = (_process(folder, name) for name in ("monitor", "first"))
        if monitor is None or first is None:
            raise ProviderError(f"{what}: it was killed while it was made")
        return monitor, first

    def _command(self, spec: ContainerSpec, folder: Folder) -> list[str]:
        return [
            self.program,
            *("--cid", spec.id, "--cuuid", spec.id, "--name", spec.id),
            *("--bundle", str(folder.path)),
            *("--runtime", self.runc.program),
            *(f"--runtime-arg={option}" for option in self.runc.global_options),
            *("--exit-dir", str(folder.exits)),
            *("--conmon-pidfile", str(folder.path / "monitor.pid")),
            *("--container-pidfile", str(folder.path / "first.pid")),
            *("--log-path", f"k8s-file:{spec.log_path}", "--log-size-max", str(spec.log_limit_bytes)),
            "--full-attach",  # sockets in the folder, however long its path
            "--no-sync-log",  # a log need not outlive the machine; an exit should not wait for a disk
            *(["--terminal"] if spec.terminal else []),
        ]


async def _first_line(stream: trio.abc.ReceiveStream) -> bytes:
    """To the newline and no further: conmon keeps its end open for as long as the container lives."""
    line = b""
    async for piece in stream:
        line += piece
        if b"\n" in piece or len(line) > _MOST_BYTES:
            break
    return line.partition(b"\n")[0]


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


def _process(folder: Folder, name: str) -> Process | None:
    return Process.find(int((folder.path / f"{name}.pid").read_text()))
