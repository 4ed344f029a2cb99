"""Fake binding and macro providers with one bug each that breaks their contracts; see ``test_mutants.py``."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, ClassVar

import attrs
import pytest
import trio
from subjects import BindingSubject

from nanocloud.errors import InvalidError, NotFoundError
from nanocloud.providers.binding import BindingResult
from nanocloud.providers.macro import MacroProvider, MacroValue
from nanocloud.testkit import FakeBinding
from nanocloud.testkit.suites import MacroProviderSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from nanocloud.providers.binding import BindingCall, BindingOutcome
    from nanocloud.providers.macro import MacroContext


class RunsBeyondItsTime(FakeBinding):
    async def run(self, call: BindingCall) -> BindingOutcome:
        outcome = await super().run(call)
        if outcome.result is BindingResult.TIMEOUT:
            await trio.sleep(1000)
        return outcome


class TestRunsBeyondItsTime(BindingSubject):
    fake = RunsBeyondItsTime
    breaks = (
        "No run outlasts the time limit, which is the provider's own, at most 900 seconds; a command that would is "
        "killed.",
    )


class RunsTwice(FakeBinding):
    """A command that failed is run again."""

    async def run(self, call: BindingCall) -> BindingOutcome:
        outcome = await super().run(call)
        return await super().run(call) if outcome.result is BindingResult.FAILED else outcome


class TestRunsTwice(BindingSubject):
    fake = RunsTwice
    breaks = ("Run the command once and report.",)


class ShowsASecret(FakeBinding):
    async def run(self, call: BindingCall) -> BindingOutcome:
        words = " ".join(argument.value for argument in call.arguments)
        return attrs.evolve(await super().run(call), output=f"{call.command} {words}")


class TestShowsASecret(BindingSubject):
    fake = ShowsASecret
    breaks = ("Standard output and error together, clipped to 1 MiB, with every secret argument masked.",)


class RaisesForWhatIsGone(FakeBinding):
    """It knows of containers that have ended, and not of those that are gone."""

    async def run(self, call: BindingCall) -> BindingOutcome:
        if call.container not in {status.id for status in await call.runtime.list()}:
            raise NotFoundError(f"container {call.container} does not exist")
        return await super().run(call)


class TestRaisesForWhatIsGone(BindingSubject):
    fake = RaisesForWhatIsGone
    breaks = ("A container that does not run is a failure of the command.",)


class Password(MacroProvider):
    """``!password LENGTH``, without a bug."""

    @property
    def name(self) -> str:
        return "password"

    @property
    def macros(self) -> Sequence[str]:
        return ("password",)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        yield

    async def expand(self, macro: str, arguments: Sequence[str], context: MacroContext) -> MacroValue:
        if len(arguments) != 1 or arguments[0] not in ("1", "2", "3"):
            raise InvalidError(f"!password {' '.join(arguments)} is not !password 1|2|3")
        return MacroValue(value="s3cret" * int(arguments[0]), secret=True)


class PasswordSubject(MacroProviderSuite):
    fake: ClassVar[type[Password]] = Password
    examples = ("password 1", "password 3")
    mistakes = ("password", "password 1 2", "password x")

    @pytest.fixture
    def make_provider(self) -> Callable[[], Password]:
        return self.fake


class TestPassword(PasswordSubject):
    breaks = ()


@attrs.frozen(kw_only=True)
class OpenValue(MacroValue):
    def __repr__(self) -> str:
        return f"OpenValue({self.value!r})"


class ShowsItsValue(Password):
    async def expand(self, macro: str, arguments: Sequence[str], context: MacroContext) -> MacroValue:
        return OpenValue(value=(await super().expand(macro, arguments, context)).value, secret=True)


class TestShowsItsValue(PasswordSubject):
    fake = ShowsItsValue
    breaks = ("True: encrypted in the profile, masked in status, events and logs.",)


class TakesWhatItIsGiven(Password):
    """Checks the number of its arguments, and no more."""

    async def expand(self, macro: str, arguments: Sequence[str], context: MacroContext) -> MacroValue:
        if len(arguments) != 1:
            return await super().expand(macro, arguments, context)
        return MacroValue(value="s3cret" * int(arguments[0]), secret=True)


class TestTakesWhatItIsGiven(PasswordSubject):
    fake = TakesWhatItIsGiven
    breaks = (
        "InvalidError: wrong arguments; the message shows the macro as written and what is allowed.",
        "A label is untrusted: whatever the arguments are, the answer is a value or an error of ``nanocloud.errors``.",
    )
