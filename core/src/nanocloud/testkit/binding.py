"""FakeBinding: runs no command; a callable of the test says how each run ends."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from nanocloud.providers.binding import BindingCall, BindingOutcome, BindingProvider, BindingResult
from nanocloud.testkit.calls import Calls, now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_MASK = "********"


def _succeed(_: BindingCall) -> int | None:
    return 0


class FakeBinding(BindingProvider):
    """Every run is kept in ``runs`` and succeeds, unless ``handler`` says another exit code, or None for a time-out."""

    def __init__(self, handler: Callable[[BindingCall], int | None] = _succeed) -> None:
        self.calls = Calls()
        self.handler = handler
        self.runs: list[BindingCall] = []

    @property
    def name(self) -> str:
        return "fake"

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        yield

    async def run(self, call: BindingCall) -> BindingOutcome:
        started_at = now()
        await self.calls.enter("run", call.id)
        self.runs.append(call)
        code = self.handler(call)
        shown = (_MASK if argument.secret else argument.value for argument in call.arguments)
        return BindingOutcome(
            result=_RESULTS.get(code, BindingResult.FAILED),
            exit_code=code,
            output=" ".join([call.command, *shown]),
            started_at=started_at,
            finished_at=now(),
        )


_RESULTS = {0: BindingResult.COMPLETED, None: BindingResult.TIMEOUT}
