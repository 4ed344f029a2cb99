"""What crun's words mean: a program that is not there ends with 127, one that cannot be executed with 126.

That is how shells tell it, and so everybody who looks at exit codes. The words are those of crun 1.8.1,
src/libcrun/container.c and utils.c; they end with strerror(3)'s text in the C locale.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from nanocloud_runtime_crun.record import Failure

if TYPE_CHECKING:
    from pathlib import Path

_PROGRAM = re.compile(r"executable file|exec container process|open executable|(^|: |`)exec: ")
_NOT_FOUND = ("No such file or directory", "Not a directory")
_TAIL_BYTES = 8192


def explain(words: str) -> Failure | None:
    """None where the words are not about the program."""
    if not _PROGRAM.search(words):
        return None
    return Failure(code=exit_code(words), message=words.strip())


def exit_code(words: str) -> int:
    """For words that say why nothing was executed."""
    about_program = _PROGRAM.search(words) is not None
    return 127 if about_program and words.rstrip().endswith(_NOT_FOUND) else 126


def last_words(log: Path) -> str:
    """The text of a CRI log's last line; crun writes there when it fails after the container was made."""
    try:
        with log.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read(_TAIL_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return ""
    return lines[-1].split(" ", 3)[-1] if lines else ""
