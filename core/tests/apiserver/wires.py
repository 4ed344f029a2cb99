"""A stream in memory, as connections of the API server want it."""

from __future__ import annotations

from typing import Any

import attrs


@attrs.define
class MemoryWire:
    """Over one end of a pair of trio's; nothing is taken at once, so every piece has to be waited for."""

    stream: Any
    _left: bytes = b""

    async def receive_some(self) -> bytes:
        return bytes(await self.stream.receive_some())

    def send_now(self, data: bytes) -> bool:
        self._left += data
        return False

    async def flush(self) -> None:
        left, self._left = self._left, b""
        await self.stream.send_all(left)
