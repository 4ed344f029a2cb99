"""Reading container logs in the CRI format, the last lines first found, and following them.

Format, one line an entry: ``<RFC 3339 time with nanoseconds> <stdout|stderr> <F|P>[:...] <text>``; ``P`` is a part of
a longer line, ``F`` ends it. Source: Kubernetes CRI, "Container Logs".
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import attrs
import trio

from nanocloud.concurrency import in_thread
from nanocloud.kubelet.inotify import changes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

_BLOCK = 64 * 1024


@attrs.frozen(kw_only=True)
class LogOptions:
    """As the query parameters of ``pods/log``."""

    follow: bool = False
    tail_lines: int | None = None
    since: float | None = None
    """Epoch seconds; older lines are left out."""
    timestamps: bool = False
    limit_bytes: int | None = None


async def read_log(path: Path, options: LogOptions, *, ended: trio.Event) -> AsyncGenerator[bytes, None]:
    """The log's text in pieces; with ``follow`` until ``ended`` is set and everything is read.

    A file that shrinks was rotated and is read from its start.
    """
    formatter = _Formatter(options)
    async with changes(path.parent) as wait:
        position = await in_thread(_start, path, options.tail_lines)
        rest = b""
        while True:
            over = ended.is_set()  # asked before reading: what came before the end is read below
            position, piece = await in_thread(_read, path, position)
            if piece:
                *lines, rest = (rest + piece).split(b"\n")
                if text := formatter.format(lines):
                    yield text
                if formatter.exhausted:
                    return
            elif over or not options.follow:
                return
            else:
                await _either(wait, ended)


def last_line(path: Path) -> str:
    """The text of the log's last entry, at most 300 characters; empty where there is none. Blocks."""
    _, piece = _read(path, _start(path, 1))
    return _Formatter(LogOptions()).format([piece]).decode(errors="replace").strip()[:300]


async def _either(wait: Callable[[], Awaitable[None]], ended: trio.Event) -> None:
    async with trio.open_nursery() as nursery:

        async def first(condition: Callable[[], Awaitable[None]]) -> None:
            await condition()
            nursery.cancel_scope.cancel()

        nursery.start_soon(first, wait)
        nursery.start_soon(first, ended.wait)


def _read(path: Path, position: int) -> tuple[int, bytes]:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < position:
                position = 0
            file.seek(position)
            piece = file.read(_BLOCK)
    except FileNotFoundError:
        return position, b""
    return position + len(piece), piece


def _start(path: Path, tail_lines: int | None) -> int:
    """Where the last ``tail_lines`` whole entries begin, found from the end."""
    if tail_lines is None:
        return 0
    try:
        with path.open("rb") as file:
            position = file.seek(0, os.SEEK_END)
            wanted = tail_lines
            end = position
            if wanted == 0:
                return end
            while position > 0:
                size = min(_BLOCK, position)
                position -= size
                file.seek(position)
                block = file.read(size)
                for index in range(len(block) - 1, -1, -1):
                    # A line counts when its own newline is passed; parts (P) belong to the entry that follows.
                    if block[index] == 0x0A and position + index != end - 1:
                        wanted -= 1
                        if wanted <= 0:
                            return position + index + 1
            return 0
    except FileNotFoundError:
        return 0


class _Formatter:
    """Strips the prefix of each entry, and applies ``since``, ``timestamps`` and ``limit_bytes``."""

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        self._left = options.limit_bytes
        self._since = b""
        if options.since is not None:
            self._since = datetime.fromtimestamp(options.since, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f").encode()

    @property
    def exhausted(self) -> bool:
        return self._left == 0

    def format(self, lines: list[bytes]) -> bytes:
        out = bytearray()
        for line in lines:
            time, _, rest = line.partition(b" ")
            _stream, _, rest = rest.partition(b" ")
            tag, _, text = rest.partition(b" ")
            if self._since and time < self._since:
                continue
            if self._options.timestamps:
                out += time + b" "
            out += text if tag.startswith(b"P") else text + b"\n"
        if self._left is not None:
            del out[self._left :]
            self._left -= len(out)
        return bytes(out)
