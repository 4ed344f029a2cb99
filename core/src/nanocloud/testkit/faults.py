"""Faults: any provider, fake or real, fails, takes long or dies with the server at a call that a test chose.

``faults.guard(provider, "network")`` gives the provider behind a gate: of the same contract, and every call of it is
counted together with those of all others that the same ``Faults`` guards. What goes wrong is decided call by call,
by a ``FaultPlan`` that names calls, by ``FaultChances`` that draws from a seed, or by any function from ``Call`` to
``Fault``. A crash ends what runs in ``async with faults.life():`` as SIGKILL would.
"""

from __future__ import annotations

import inspect
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import trio

from nanocloud.concurrency import first_error
from nanocloud.errors import ImageError, NanocloudError, ProviderError, UnavailableError
from nanocloud.providers.base import Provider
from nanocloud.providers.storage import Transaction
from nanocloud.testkit.disk import shown_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection
    from random import Random

P = TypeVar("P", bound=Provider)


class CrashedError(BaseException):
    """The server is dead; nothing it still tries has any effect."""


@attrs.frozen
class Call:
    """One call of a guarded provider."""

    number: int
    """Counted from 1 over all providers behind the same ``Faults``."""
    provider: str
    method: str
    subject: str
    """The object it is about: an id, a reference, the keys of a transaction."""


@attrs.frozen(kw_only=True)
class Fault:
    """What happens at a call."""

    error: Exception | None = None
    """Raised in place of the answer."""
    crash: bool = False
    """The server dies."""
    after: bool = False
    """The call takes effect first, so that only its answer is lost."""
    delay_seconds: float = 0.0
    """Pass before the call begins."""


NOTHING = Fault()


class FaultPlan:
    """Faults at calls that are named. Each rule counts the calls that it is about."""

    def __init__(self) -> None:
        self._rules: list[_Rule] = []

    def add(
        self, fault: Fault, *, provider: str = "", method: str = "", subject: str = "", at: int = 1, times: int = 1
    ) -> None:
        """The ``at``-th call from now on that matches, and the ``times - 1`` after it. Empty words match all calls."""
        self._rules.append(_Rule(fault, (provider, method, subject), at, times))

    def __call__(self, call: Call) -> Fault:
        struck = [rule.fault for rule in self._rules if rule.is_due(call)]
        return struck[0] if struck else NOTHING


@attrs.define
class _Rule:
    fault: Fault
    words: tuple[str, str, str]
    at: int
    times: int
    seen: int = 0

    def is_due(self, call: Call) -> bool:
        parts = (call.provider, call.method, call.subject)
        if any(word not in ("", part) for word, part in zip(self.words, parts, strict=True)):
            return False
        self.seen += 1
        return self.at <= self.seen < self.at + self.times


@attrs.define(kw_only=True)
class FaultChances:
    """Faults drawn from a seeded generator: each number is the chance of it at one call, from 0 to 1."""

    rng: Random
    fail: float = 0.0
    lose: float = 0.0
    """An error after the call took effect."""
    delay: float = 0.0
    longest_delay_seconds: float = 10.0
    crash: float = 0.0

    def __call__(self, call: Call) -> Fault:
        draw = self.rng.random()
        delay = self.rng.uniform(0, self.longest_delay_seconds) if self.rng.random() < self.delay else 0.0
        if (draw := draw - self.fail) < 0:
            return Fault(error=injected_error(call), delay_seconds=delay)
        if (draw := draw - self.lose) < 0:
            return Fault(error=injected_error(call), after=True, delay_seconds=delay)
        if draw - self.crash < 0:
            return Fault(crash=True, after=self.rng.random() < 0.5, delay_seconds=delay)
        return Fault(delay_seconds=delay) if delay else NOTHING


def injected_error(call: Call) -> NanocloudError:
    """The error that a provider of this contract fails with when its host does."""
    kinds: dict[str, type[NanocloudError]] = {"storage": UnavailableError, "images": ImageError}
    return kinds.get(call.provider, ProviderError)(f"injected: {call.provider} {call.method} {call.subject}")


class Faults:
    """Counts the calls of all that it guards and lets ``source`` decide what happens at each.

    From the beginning; where a server lives and dies several times, during each ``life``.
    """

    def __init__(self, source: Callable[[Call], Fault] | None = None) -> None:
        self.source = source or FaultPlan()
        self.taken = 0
        self.crash_at: int | None = None
        """Die before the call of this number."""
        self.last: Call | None = None
        self.dead = False
        self.when_dead: list[Callable[[], None]] = []
        """Called in the moment of a crash: what the machine loses with the server."""
        self.watchers: list[Callable[[Call, Fault], None]] = []
        self._striking = True
        self._scope: trio.CancelScope | None = None

    @asynccontextmanager
    async def life(self) -> AsyncIterator[None]:
        """One life of a server, until the body ends or a crash ends it: a dead server's errors are nobody's."""
        try:
            with trio.CancelScope() as scope:
                self.begin(scope)
                yield
        except CrashedError:
            pass
        except BaseExceptionGroup as group:
            if not isinstance(first_error(group), CrashedError):
                raise
        finally:
            self.end()

    def begin(self, scope: trio.CancelScope) -> None:
        """A life of the server begins: calls are counted anew, faults strike, and a crash cancels ``scope``."""
        self.taken, self._striking, self._scope = 0, True, scope

    def end(self) -> None:
        """It is over: until the next one begins no call is counted and no fault strikes."""
        self.dead, self._striking, self._scope = False, False, None

    def crash(self) -> None:
        """Die here and now, as by SIGKILL."""
        if self._striking and not self.dead:
            self.dead = True
            for lose in self.when_dead:
                lose()
            if self._scope is not None:
                self._scope.cancel()

    def require_life(self) -> None:
        """Raises CrashedError once the server is dead."""
        if self.dead:
            raise CrashedError

    def guard(self, provider: P, name: str, *, methods: Collection[str] | None = None) -> P:
        """The provider behind the gate. ``methods`` are those that count; the others only end with the server.

        It is of every contract, and has every optional power, that the provider has; what else the provider offers is
        reached through it as well.
        """
        return _gate(provider, name, self, methods)

    async def before(self, provider: str, method: str, subject: str, *, counts: bool = True) -> Fault:
        """A call begins: count it, take its time, and raise what strikes before it has any effect."""
        self.require_life()
        if not counts or not self._striking:
            return NOTHING
        fault = self._meet(Call(self.taken + 1, provider, method, subject))
        if fault.delay_seconds:
            await trio.sleep(fault.delay_seconds)
            self.require_life()
        if not fault.after:
            self._strike(fault)
        return fault

    def after(self, fault: Fault) -> None:
        """The call took effect: raise what its caller gets instead of the answer."""
        self.require_life()
        if fault.after:
            self._strike(fault)

    def _meet(self, call: Call) -> Fault:
        self.taken, self.last = call.number, call
        fault = Fault(crash=True) if self.taken == self.crash_at else self.source(call)
        for watcher in self.watchers:
            watcher(call, fault)
        return fault

    def _strike(self, fault: Fault) -> None:
        if fault.crash:
            self.crash()
            raise CrashedError
        if fault.error is not None:
            raise fault.error


def _gate(provider: P, name: str, faults: Faults, methods: Collection[str] | None) -> P:
    contracts = _contracts(type(provider))
    members: dict[str, Any] = {"__getattr__": lambda _, attribute: getattr(provider, attribute)}
    for contract in contracts:
        for member in sorted(getattr(contract, "__abstractmethods__", ())):
            counts = methods is None or member in methods
            members[member] = _member(provider, name, member, getattr(contract, member), faults, counts=counts)
    gate: P = type(f"Guarded{type(provider).__name__}", contracts, members)()
    return gate


def _contracts(kind: type) -> tuple[type, ...]:
    """The contracts and optional powers of a provider's class, without those that others of them imply."""
    found = [base for base in kind.__mro__ if base.__module__.startswith("nanocloud.providers.")]
    return tuple(base for base in found if not any(base in other.__mro__[1:] for other in found))


def _member(provider: Any, name: str, member: str, declared: Any, faults: Faults, *, counts: bool) -> Any:
    if isinstance(declared, property):
        return property(lambda _: getattr(provider, member))
    method = getattr(provider, member)
    if member == "lifespan":
        return lambda _: method()
    if inspect.iscoroutinefunction(declared):

        async def call(_: object, *args: Any, **kwargs: Any) -> Any:
            fault = await faults.before(name, member, _subject((*args, *kwargs.values())), counts=counts)
            answer = await method(*args, **kwargs)
            faults.after(fault)
            return answer

        return call

    @asynccontextmanager
    async def enter(_: object, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        fault = await faults.before(name, member, _subject((*args, *kwargs.values())), counts=counts)
        async with method(*args, **kwargs) as value:
            faults.after(fault)
            yield value

    return enter


def _subject(args: tuple[Any, ...]) -> str:
    first = args[0] if args else ""
    if isinstance(first, Transaction):
        return " ".join(shown_key(operation.key) for operation in first.operations)
    if isinstance(first, bytes):
        return shown_key(first)
    if isinstance(first, str | int):
        return str(first)
    return str(next((getattr(first, name) for name in ("id", "sandbox", "reference") if hasattr(first, name)), ""))
