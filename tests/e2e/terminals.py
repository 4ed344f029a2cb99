"""A command on a terminal: a pseudo-terminal that is its controlling one, and a test that types."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

LIMIT_SECONDS = 60.0
END_OF_INPUT = "\x04"
"""Control and D."""


class Terminal:
    """What the command printed so far, and the keyboard."""

    def __init__(self, master: int, process: subprocess.Popen[bytes]) -> None:
        self._master, self.process = master, process
        self.text = ""
        self._seen = 0

    def wait_for(self, pattern: str, seconds: float = LIMIT_SECONDS) -> str:
        """Until the pattern stands in what was printed since the last one."""
        limit = time.monotonic() + seconds
        while (found := re.search(pattern, self.text[self._seen :])) is None:
            assert self._read(limit), f"{pattern!r} was never printed:\n{self.text}"
        self._seen += found.end()
        return found[0]

    def type(self, line: str) -> None:
        self.press(line + "\n")

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def end(self, seconds: float = LIMIT_SECONDS) -> int:
        """Read to the end; the exit status is returned."""
        limit = time.monotonic() + seconds
        while self._read(limit):
            pass
        return self.process.wait(max(1.0, limit - time.monotonic()))

    def _read(self, limit: float) -> bool:
        """False at the end, and when the time is over."""
        ready, _, _ = select.select([self._master], [], [], max(0.0, limit - time.monotonic()))
        if not ready:
            return False
        try:
            chunk = os.read(self._master, 65536)
        except OSError:  # the last process with the terminal ended
            return False
        self.text += chunk.decode(errors="replace").replace("\r\n", "\n")
        return bool(chunk)


@contextmanager
def terminal(command: list[str], environment: Mapping[str, str]) -> Iterator[Terminal]:
    """Run a command with a terminal as its standard streams."""
    master, slave = pty.openpty()
    try:
        process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *command], env=environment, stdin=slave, stdout=slave, stderr=slave
        )
        os.close(slave)
        try:
            yield Terminal(master, process)
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(LIMIT_SECONDS)
    finally:
        os.close(master)
