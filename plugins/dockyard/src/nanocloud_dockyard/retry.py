"""What may succeed later is tried again, with pauses that grow."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, TypeVar

import attrs
import trio

from nanocloud.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


class TransientError(Exception):
    """The same request may succeed later."""

    def __init__(self, message: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


@attrs.frozen(kw_only=True)
class Backoff:
    """How long to wait before attempt 2, 3, ...; half of it is chance, so that nodes do not come back together."""

    attempts: int = 5
    first_seconds: float = 0.5
    most_seconds: float = 8.0

    def seconds(self, failures: int) -> float:
        full = min(self.first_seconds * 2.0 ** (failures - 1), self.most_seconds)
        return full * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret

    async def pause(self, failures: int, exc: TransientError, *, attempts: int | None = None) -> None:
        """Wait after failure number ``failures``; raises ImageError where that was the last attempt."""
        if failures >= (attempts or self.attempts):
            times = f"; tried {failures} times" if failures > 1 else ""
            raise ImageError(f"{exc}{times}") from exc
        await trio.sleep(max(self.seconds(failures), exc.retry_after_seconds))

    async def repeated(self, call: Callable[[], Awaitable[T]]) -> T:
        failures = 0
        while True:
            try:
                return await call()
            except TransientError as exc:
                failures += 1
                await self.pause(failures, exc)
