"""Reads ahead in a thread, a few pieces: decompressing and digesting use one core, writing files another.

Imported by the unpacking child: standard library only.
"""

from __future__ import annotations

import io
import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PIECES = 4
_STACK_BYTES = 512 << 10


class ReadAhead(io.RawIOBase):
    """The pieces that ``read`` gives, in order; its error comes where it would have come without a thread.

    The thread is a daemon: a process that ends early does not wait for it.
    """

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._inner = read
        self._pieces: queue.Queue[bytes | BaseException] = queue.Queue(_PIECES)
        self._end: bytes | BaseException | None = None
        threading.stack_size(_STACK_BYTES)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            while piece := self._inner():
                self._pieces.put(piece)
            self._pieces.put(b"")
        except BaseException as exc:
            self._pieces.put(exc)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """The next piece, whatever ``size`` says; empty at the end."""
        piece = self._end if self._end is not None else self._pieces.get()
        if isinstance(piece, BaseException) or not piece:
            self._end = piece
        if isinstance(piece, BaseException):
            raise piece
        return piece
