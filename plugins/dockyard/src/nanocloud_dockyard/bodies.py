"""Bodies of answers, read as they arrive and for a bounded time: the library bounds only each single read."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING

import httpx2
import trio

from nanocloud.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

_DOCUMENT_SECONDS = 120.0
_STALL_BYTES, _STALL_SECONDS = 64 << 10, 60.0


@contextmanager
def within(seconds: float, message: str) -> Iterator[None]:
    """A time-out like those of the library: raises its ReadTimeout with ``message``."""
    with trio.move_on_after(max(0.0, seconds)) as scope:
        yield
    if scope.cancelled_caught:
        raise httpx2.ReadTimeout(message)


@asynccontextmanager
async def body(response: httpx2.Response) -> AsyncIterator[AsyncIterator[bytes]]:
    """The bytes as they arrive; the response is closed where the body is left."""
    pieces = response.aiter_raw()
    steady = _steady(pieces)
    try:
        yield steady
    finally:
        await steady.aclose()
        await response.aclose()
        # The library's generators inside ``pieces`` end only by reading on from what is closed now.
        with suppress(StopAsyncIteration, httpx2.TransportError, httpx2.StreamError):
            await anext(pieces)
        await pieces.aclose()


async def _steady(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """``pieces``, while so many bytes come in such a time: a drip would hold us for ever.

    Only the time that the server takes counts, not that of the taker.
    """
    size, left = 0, _STALL_SECONDS
    while True:
        began = trio.current_time()
        with within(left, f"fewer than {_STALL_BYTES} bytes came in {_STALL_SECONDS:.0f} s"):
            piece = await anext(pieces, b"")
        if not piece:
            return
        size, left = size + len(piece), left - (trio.current_time() - began)
        if size >= _STALL_BYTES:
            size, left = 0, _STALL_SECONDS
        yield piece


async def read_body(response: httpx2.Response, most: int, what: str) -> bytes:
    """All of a body that must be small."""
    kept, size = bytearray(), 0
    async with body(response) as pieces:
        with within(_DOCUMENT_SECONDS, f"not whole within {_DOCUMENT_SECONDS:.0f} s"):
            async for piece in pieces:
                size += len(piece)
                if size > most:
                    raise ImageError(f"{what} is over {most} bytes")
                kept += piece
    return bytes(kept)
