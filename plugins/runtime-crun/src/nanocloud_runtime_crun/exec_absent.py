"""The exec session of a program that the image does not have.

crun could tell as well, but it takes a process for it, which it leaves unreaped to the host's first process; until
that has looked after it the container cannot end. And it is asked often: an image without a readiness program is ready
by this answer.
"""

from __future__ import annotations

import trio

from nanocloud.providers.runtime import ExecSession

_NOT_FOUND = 127


class AbsentProgram(ExecSession):
    """Ended before it began."""

    def __init__(self, program: str, *, stdin: bool, terminal: bool) -> None:
        words = _Words(f"executable file `{program}` not found: No such file or directory\n".encode())
        self.stdin = _Nobody() if stdin else None
        self.stdout = words if terminal else _Words(b"")
        self.stderr = None if terminal else words

    async def resize(self, *, rows: int, columns: int) -> None:
        await trio.lowlevel.checkpoint()

    async def wait(self) -> int:
        await trio.lowlevel.checkpoint()
        return _NOT_FOUND


class _Words(trio.abc.ReceiveStream):
    def __init__(self, words: bytes) -> None:
        self._words = words

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        size = len(self._words) if max_bytes is None else max_bytes
        given, self._words = self._words[:size], self._words[size:]
        return given

    async def aclose(self) -> None:
        self._words = b""
        await trio.lowlevel.checkpoint()


class _Nobody(trio.abc.SendStream):
    """A pipe that nobody reads."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError("the program was never executed")

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
