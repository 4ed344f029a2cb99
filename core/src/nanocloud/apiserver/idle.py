"""The connections that are served, and the end of those that ask for nothing.

One task looks after all of them. A deadline of its own, which every request moves, would cost a connection 5 us for
each, a tenth of a small answer. The task wakes when the one that has waited longest has waited too long, and not at
all while there is none.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nanocloud.apiserver.connection import Connection

IDLE_SECONDS = 120.0
"""Between two requests."""


class OpenConnections:
    def __init__(self) -> None:
        self._open: set[Connection] = set()
        self._has_any = trio.Event()

    @contextmanager
    def holding(self, connection: Connection) -> Iterator[None]:
        """Look after it inside."""
        self._open.add(connection)
        self._has_any.set()
        try:
            yield
        finally:
            self._open.discard(connection)
            if not self._open:
                self._has_any = trio.Event()

    def stop(self) -> None:
        """The server ends: at once what is idle, the others after their answer."""
        for connection in self._open:
            connection.stop()

    async def end_idle(self) -> None:
        """Until cancelled."""
        while True:
            await self._has_any.wait()
            # Whoever begins to wait from now on has its time until then at least.
            wakes = trio.current_time() + IDLE_SECONDS
            for connection in self._open:
                ends = connection.idle_since + IDLE_SECONDS
                if ends <= trio.current_time():
                    connection.stop()
                else:
                    wakes = min(wakes, ends)
            await trio.sleep_until(wakes)
