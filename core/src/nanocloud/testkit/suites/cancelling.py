"""Cancellation at every await of a call, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MOST_AWAITS = 300


async def cancel_at_every_await(call: Callable[[], Awaitable[object]], look: Callable[[], Awaitable[None]]) -> None:
    """Run ``call`` again and again, cancelled at its first await, its second, and so on, until it comes to its end.

    ``look`` is run after each time: it looks at what is left, and undoes what a call did that came to its end. Fails
    where no await ends by cancellation: such a call ignores it.
    """
    any_ended = False
    for awaits in range(1, MOST_AWAITS):
        with trio.CancelScope() as scope:
            stop = _StopAt(trio.lowlevel.current_task(), scope, awaits)
            trio.lowlevel.add_instrument(stop)
            try:
                await call()
            finally:
                trio.lowlevel.remove_instrument(stop)
        any_ended |= scope.cancelled_caught
        await look()
        if stop.left > 0:
            assert any_ended, "cancellation ends the call at none of its awaits"
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
