"""The two directions of a terminal, as trio streams over its master; for runtimes.

A master ends otherwise than a pipe does: nobody can hang up on one side of it, and its end is an error.
"""

from __future__ import annotations

import contextlib

import trio

_END_OF_TRANSMISSION = b"\x04"


class TerminalOutput(trio.abc.ReceiveStream):
    """What a terminal shows; its end is where nobody holds the other side any more, which the kernel calls EIO."""

    def __init__(self, master: int) -> None:
        """Takes the descriptor, and closes it."""
        self._stream = trio.lowlevel.FdStream(master)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        try:
            return bytes(await self._stream.receive_some(max_bytes))
        except trio.BrokenResourceError:
            return b""

    async def aclose(self) -> None:
        await self._stream.aclose()


class TerminalInput(trio.abc.SendStream):
    """What is typed. Closing it types the end-of-file character: a terminal cannot be closed on one side."""

    def __init__(self, master: int) -> None:
        """Takes the descriptor, and closes it: a duplicate where the output reads the same terminal."""
        self._stream = trio.lowlevel.FdStream(master)
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        try:
            if not self._closed:
                self._closed = True
                with contextlib.suppress(trio.BrokenResourceError):  # nobody reads any more
                    await self._stream.send_all(_END_OF_TRANSMISSION)
        finally:
            await self._stream.aclose()
