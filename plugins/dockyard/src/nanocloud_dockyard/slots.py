"""Some things at a time, the largest of those that wait first: then the end is not one long one alone."""

from __future__ import annotations

import heapq
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Slots:
    """``hold`` one of a number of slots; those who come together are served by size."""

    def __init__(self, number: int) -> None:
        self._free = number
        self._waiting: list[tuple[int, int, trio.Event]] = []
        self._numbers = count()  # of equal size: who came first

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        turn = trio.Event()
        place = (-size, next(self._numbers), turn)
        heapq.heappush(self._waiting, place)
        try:
            await trio.lowlevel.checkpoint()  # whoever comes in the same moment is in the queue by now
            self._serve()
            await turn.wait()
        except BaseException:
            self._leave(place)
            raise
        try:
            yield
        finally:
            self._free += 1
            self._serve()

    def _serve(self) -> None:
        while self._free and self._waiting:
            self._free -= 1
            heapq.heappop(self._waiting)[2].set()

    def _leave(self, place: tuple[int, int, trio.Event]) -> None:
        if place[2].is_set():
            self._free += 1
        else:
            self._waiting.remove(place)
            heapq.heapify(self._waiting)
        self._serve()
