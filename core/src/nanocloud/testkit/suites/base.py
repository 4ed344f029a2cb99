"""What the suites of all contracts share: building, opening, killing and clearing away the provider under test."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

import pytest
import trio

from nanocloud.providers.base import Provider, Removable
from nanocloud.testkit.suites import abrupt

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

P = TypeVar("P", bound=Provider)

CLEANUP_SECONDS = 30
PLUGIN = "nanocloud.testkit.plugin"


class ProviderSuite(Generic[P]):
    """Base of the suites; ``make_provider`` is what a subclass gives.

    The docstring of a test is the sentence of the contract that it holds, as it stands in ``nanocloud.providers``.
    """

    contract: ClassVar[str]
    """The module below ``nanocloud.providers``."""
    in_memory: ClassVar[bool] = False
    """True for a fake that would be gone with its process. It is not killed: ``crash`` is called, and it is left."""
    virtual_time: ClassVar[float | None] = None
    """Where nothing but trio's clock is waited for, hours can pass in no time: the clock jumps whenever nothing happens
    for so many seconds. 0 for what has no threads. None: the real clock."""

    @pytest.fixture(autouse=True)
    def plugin(self, request: pytest.FixtureRequest) -> None:
        """What the suites need of pytest comes by the plugin."""
        if not request.config.pluginmanager.has_plugin(PLUGIN):
            pytest.fail(f"the conformance suites run under: pytest -p {PLUGIN}", pytrace=False)

    @pytest.fixture
    def make_provider(self) -> Callable[[], P]:
        """Builds a provider that is not open; every call, one over the same folders."""
        pytest.fail(f"{type(self).__name__} must define the fixture make_provider", pytrace=False)

    @pytest.fixture
    def untouched(self, make_provider: Callable[[], P], tmp_path: Path) -> list[Path]:
        """What the test's folder has before the first provider is built."""
        return sorted(tmp_path.rglob("*"))

    @pytest.fixture(autouse=True)
    def cleared_away(self, make_provider: Callable[[], P], untouched: list[Path]) -> Iterator[None]:
        """Looks at what the author's fixture builds, before a sentence is blamed for it; purges what the test left,
        where the provider can.

        Not an async fixture: pytest-trio runs those only where a test or another fixture names them.
        """
        if wrong := _wrong_with(make_provider, self.contract):
            pytest.fail(f"{type(self).__name__}: {wrong}", pytrace=False)
        yield
        unopened: Provider = make_provider()
        if isinstance(unopened, Removable):
            trio.run(_purge, unopened)

    @pytest.fixture
    async def provider(self, make_provider: Callable[[], P]) -> AsyncIterator[P]:
        """An open provider."""
        async with make_provider() as opened:
            yield opened

    async def end_abruptly(
        self,
        make_provider: Callable[[], P],
        work: Callable[[P, Callable[[str], None]], Awaitable[None]],
        *,
        after: int = 0,
    ) -> list[str]:
        """Let a provider do ``work`` and come to a sudden end: its process is killed. See ``suites.abrupt``."""
        if self.in_memory:
            return await abrupt.left(make_provider, work, after=after, crash=self.crash)
        return await abrupt.killed(make_provider, work, after=after)

    def crash(self, provider: P) -> None:
        """What a sudden end takes from a provider in memory: nothing, unless a subclass knows better."""

    async def purge(self, make_provider: Callable[[], P]) -> None:
        """Purge twice; skips the test where the provider cannot."""
        for _ in range(2):
            unopened: Provider = make_provider()
            if not isinstance(unopened, Removable):
                pytest.skip("it has no purge")
            await unopened.purge()

    async def test_name_is_an_rfc_1123_label(self, make_provider: Callable[[], P]) -> None:
        """How the configuration selects this provider; unique within its contract, RFC 1123 label."""
        name = make_provider().name
        assert 1 <= len(name) <= 63
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        assert name[0] != "-" != name[-1]

    async def test_building_one_touches_nothing(
        self, make_provider: Callable[[], P], untouched: list[Path], tmp_path: Path
    ) -> None:
        """Building one must not touch the host; ``lifespan`` does."""
        make_provider()
        assert sorted(tmp_path.rglob("*")) == untouched

    async def test_opens_again_after_it_was_closed(self, make_provider: Callable[[], P]) -> None:
        """The node opens a provider before it calls any other method, closes it when it ends, and may open it again."""
        opened = make_provider()
        for provider in (opened, opened, make_provider()):
            async with provider:
                pass

    async def test_opens_again_after_it_was_killed(self, make_provider: Callable[[], P]) -> None:
        """Entering is idempotent on the host: a node that was killed enters again and finds what it left."""

        async def nothing(_: P, __: Callable[[str], None]) -> None:
            pass

        await self.end_abruptly(make_provider, nothing)
        async with make_provider():
            pass


async def _purge(provider: Removable) -> None:
    with trio.fail_after(CLEANUP_SECONDS):
        await provider.purge()


def _wrong_with(make_provider: object, contract: str) -> str:
    """What an author mistook in the fixture or in the shape of the provider, in one line; else nothing."""
    if not callable(make_provider):
        return f"make_provider must give a callable that builds a provider; it gave {make_provider!r}"
    made = make_provider()
    wanted = f"{contract.capitalize()}Provider"
    if inspect.iscoroutine(made):
        made.close()
        return "what make_provider gives must not be async: building a provider touches nothing, lifespan does"
    if not isinstance(made, getattr(importlib.import_module(f"nanocloud.providers.{contract}"), wanted)):
        return f"what make_provider gives must build a {wanted}; it built {made!r}"
    lifespan = type(made).lifespan
    if inspect.isasyncgenfunction(lifespan) or inspect.iscoroutinefunction(lifespan):
        return f"{type(made).__name__}.lifespan must be decorated with @asynccontextmanager and yield once"
    return ""
