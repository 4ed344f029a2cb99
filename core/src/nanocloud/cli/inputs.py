"""Files that commands read: by name or from standard input, and never more than they can use."""

from __future__ import annotations

import sys
from pathlib import Path

from nanocloud.errors import UsageError


def read_input(file: str, limit_bytes: int) -> bytes:
    """The content of ``file``; ``-`` is standard input.

    Raises:
        UsageError: it cannot be read, or is larger than the limit.
    """
    try:
        if file == "-":
            content = sys.stdin.buffer.read(limit_bytes + 1)
        else:
            with Path(file).open("rb") as opened:
                content = opened.read(limit_bytes + 1)
    except OSError as exc:
        raise UsageError(f"cannot read {file}: {exc.strerror}") from exc
    if len(content) > limit_bytes:
        raise UsageError(f"{file} is larger than {limit_bytes} bytes")
    return content
