"""runc's command line, and what its words mean.

runc ends with 1 or 255 for every failure of its own; why stands in its words only. A program that cannot be run is told
from all else by them.

Source: runc(8), runc-exec(8) of runc 1.1; libcontainer's init of the same version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import attrs

from nanocloud.errors import ProviderError
from nanocloud_runtime_runc.processes import Process, with_words

_NO_PROGRAM = re.compile(r'exec: ".*?": |exec /.*?: ')
"""What it says before the process is the container's, and what the process says where execve fails."""
_NOT_FOUND = ("executable file not found in $PATH", "no such file or directory")
_LONGEST = 500
NOT_FOUND, NOT_EXECUTABLE = 127, 126


class NoProgramError(ProviderError):
    """The image has no such program, or it cannot be executed."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
        """127 or 126."""


@attrs.frozen
class Runc:
    program: str
    root: Path
    """Where runc keeps its own state, on the tmpfs."""

    def command(self, *words: str) -> list[str]:
        return [self.program, *self.global_options, *words]

    @property
    def global_options(self) -> tuple[str, ...]:
        return (self._root_option,)

    @property
    def _root_option(self) -> str:
        return f"--root={self.root}"

    def makers(self, *words: str) -> Iterator[Process]:
        """Processes of this runtime that are at work: runc, and conmon, which has the option inside one of its own."""
        return with_words(self._root_option, *words)


def refusal(what: str, words: str) -> ProviderError:
    """The error for what runc has said; one line."""
    said = " ".join(words.replace("\\", "").split()).rstrip('"')
    last = said.rpartition("unable to start container process: ")[2][-_LONGEST:] or "runc gave no reason"
    if _NO_PROGRAM.match(last):
        code = NOT_FOUND if last.endswith(_NOT_FOUND) else NOT_EXECUTABLE
        return NoProgramError(f"{what}: {last}", code)
    return ProviderError(f"{what}: {last}")


def errors_in(log: str) -> list[str]:
    """The errors in a log of ``--log-format=json``."""
    found = []
    for line in log.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # the last one may have been cut off
        if entry.get("level") in ("error", "fatal"):
            found.append(str(entry.get("msg", "")))
    return found
