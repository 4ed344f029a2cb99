"""Cancellation at every await of a call, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MOST_AWAITS = 300


async def cancel_at_every_await(call: Callable[[], Awaitable[object]], look: Callable[[], Awaitable[None]]) -> None:
    """Run ``call`` again and again, cancelled before it begins, at its first await, its second, and so on to its end.

    ``look`` is run after each time: it looks at what is left, and undoes what a call did that came to its end. Fails
    where cancellation never ends the call. (It need not at each await: one that waits for a thread goes on.)
    """
    any_ended = False
    for awaits in range(MOST_AWAITS):
        with trio.CancelScope() as scope:
            stop = _StopAt(trio.lowlevel.current_task(), scope, awaits)
            if awaits == 0:
                scope.cancel()
            trio.lowlevel.add_instrument(stop)
            try:
                await call()
            finally:
                trio.lowlevel.remove_instrument(stop)
        any_ended |= scope.cancelled_caught
        await look()
        if stop.left > 0:
            assert any_ended, "cancellation does not end the call"
            return
    raise AssertionError(f"the call has more than {MOST_AWAITS} awaits")


@attrs.define(eq=False)
class _StopAt(trio.abc.Instrument):
    task: trio.lowlevel.Task
    scope: trio.CancelScope
    left: int

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()
