"""Runs one program of a build: output to a log file, nothing left behind however this process ends.

Each program gets its own mount and process namespaces. When it ends, or this process does (also by SIGKILL), the
kernel kills everything below it and its mounts are gone. The build lock's descriptor is inherited, so the lock is
held until the last of them is dead.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections import deque
from typing import TYPE_CHECKING

from nanocloud.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_CAGE = (
    *("setpriv", "--pdeathsig", "KILL", "--"),
    *("unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"),
)
_LINE_LIMIT, _TAIL_LINES = 16 * 1024, 15
_INHERITED = ("PATH", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def run(
    argv: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str],
    lock: int,
    on_line: Callable[[str], None] = lambda line: None,
) -> str:
    """Run ``argv`` to its end and return its last line of output. Call from the main thread, which the kill hangs on.

    Raises:
        CommandError: it failed; ``stderr`` holds the last lines of its output.
    """
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    with log.open("ab") as sink:
        sink.write(f"\n$ {' '.join(argv)}\n".encode())
        sink.flush()
        with subprocess.Popen(
            (*_CAGE, *argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"LANG": "C.UTF-8", **inherited, **environment},
            pass_fds=(lock,),
            start_new_session=True,  # Ctrl-C reaches this process only, which then ends the group in order
        ) as process:
            assert process.stdout is not None
            try:
                while line := process.stdout.readline(_LINE_LIMIT):
                    sink.write(line)
                    sink.flush()
                    text = line.decode(errors="replace").rstrip()
                    if text:
                        tail.append(text)
                        on_line(text)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
    if process.returncode:
        raise CommandError(argv, process.returncode, "\n".join(tail))
    return tail[-1] if tail else ""
