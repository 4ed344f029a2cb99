"""FakeBinding: runs no command; a callable of the test says how each run ends."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from nanocloud.errors import InvalidError, NanocloudError
from nanocloud.providers.binding import BindingCall, BindingOutcome, BindingProvider, BindingResult
from nanocloud.testkit.calls import Calls, now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_COMMAND = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_MASK = "********"


def _succeed(_: BindingCall) -> int | None:
    return 0


class FakeBinding(BindingProvider):
    """Every run is kept in ``runs`` and succeeds, unless ``handler`` says another exit code, or None for a time-out.

    A handler that raises a NanocloudError is a command that could not be run.
    """

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
        if not _COMMAND.fullmatch(call.command):
            raise InvalidError(f"binding command {call.command!r} is not a name of a-z, 0-9, '-' and '_'")
        started_at = now()
        await self.calls.enter("run", call.id)
        self.runs.append(call)
        shown = (_MASK if argument.secret else argument.value for argument in call.arguments)
        output = " ".join([call.command, *shown])
        try:
            code = self.handler(call)
            result = _RESULTS.get(code, BindingResult.FAILED)
        except NanocloudError as exc:
            code, result, output = None, BindingResult.FAILED, str(exc)
        return BindingOutcome(
            result=result,
            exit_code=code,
            output=output,
            started_at=started_at,
            finished_at=now(),
        )


_RESULTS = {0: BindingResult.COMPLETED, None: BindingResult.TIMEOUT}
