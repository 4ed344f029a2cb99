"""The gate of the memory map: it may be replaced only while no transaction is open in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class MapGate:
    """Readers pass side by side; who replaces the map waits until none is inside, and is alone then."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._wanted = False

    @contextmanager
    def reading(self, *, patient: bool) -> Iterator[None]:
        """``patient`` readers, which stay long, let a waiting replacement go first, so that it finds its moment.

        The others wait for nothing but the replacement itself, some microseconds: trio's own thread must not block.
        """
        with self._changed:
            if patient:
                self._changed.wait_for(lambda: not self._wanted)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._wanted = True
            try:
                self._changed.wait_for(lambda: not self._readers)
                yield
            finally:
                self._wanted = False
                self._changed.notify_all()
