"""Run a blocking function in a thread of its own that ends with it.

Namespaces and ptrace belong to a thread: a thread that has left the host's mount namespace must never go back into
trio's cache, from where it would serve somebody else.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class _Call(Generic[T]):
    """One call and what came of it."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._value: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._value.append(self._function())
        except BaseException as exc:
            self._error = exc

    def result(self) -> T:
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # an exception that holds its own frame is a reference cycle
        return self._value[0]


async def run_in_own_thread(function: Callable[[], T]) -> T:
    """Call ``function`` in a fresh thread and wait for it; a cancellation is delivered only after it has returned."""
    await trio.lowlevel.checkpoint_if_cancelled()
    call, task, token = _Call(function), trio.lowlevel.current_task(), trio.lowlevel.current_trio_token()

    def body() -> None:
        call.run()
        token.run_sync_soon(trio.lowlevel.reschedule, task)

    def abort(_: object) -> trio.lowlevel.Abort:
        return trio.lowlevel.Abort.FAILED

    threading.Thread(target=body, name="crun", daemon=True).start()
    await trio.lowlevel.wait_task_rescheduled(abort)
    return call.result()
