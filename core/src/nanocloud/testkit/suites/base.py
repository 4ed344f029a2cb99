"""What the suites of all contracts share: building, opening and clearing away the provider under test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import pytest
import trio

from nanocloud.providers.base import Provider, Removable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

P = TypeVar("P", bound=Provider)

CLEANUP_SECONDS = 30


class ProviderSuite(Generic[P]):
    """Base of the suites; ``make_provider`` is what a subclass gives."""

    pytestmark = pytest.mark.trio

    @pytest.fixture
    def make_provider(self) -> Callable[[], P]:
        """Builds a provider that is not open; every call, one over the same folders."""
        raise TypeError(f"{type(self).__name__} must define the fixture make_provider")

    @pytest.fixture(autouse=True)
    async def cleared_away(self, make_provider: Callable[[], P]) -> AsyncIterator[None]:
        """Purges what the test left, where the provider can; after ``provider`` is closed, which depends on it."""
        yield
        unopened: Provider = make_provider()
        if isinstance(unopened, Removable):
            with trio.fail_after(CLEANUP_SECONDS):
                await unopened.purge()

    @pytest.fixture
    async def provider(self, make_provider: Callable[[], P], cleared_away: None) -> AsyncIterator[P]:
        """An open provider."""
        async with make_provider() as opened:
            yield opened

    async def test_name_is_an_rfc_1123_label(self, make_provider: Callable[[], P]) -> None:
        """How the configuration selects this provider; RFC 1123 label."""
        name = make_provider().name
        assert 1 <= len(name) <= 63
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        assert name[0] != "-" != name[-1]

    async def test_opens_again_after_it_was_closed(self, make_provider: Callable[[], P]) -> None:
        """Entering is idempotent on the host: a node that was killed enters again and finds what it left."""
        for _ in range(2):
            async with make_provider():
                pass
