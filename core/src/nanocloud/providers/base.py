"""What every provider has: a name, and a life that the node opens and closes."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType


class Provider(abc.ABC):
    """Base of all contracts.

    Building one must not touch the host; ``lifespan`` does. The node opens a provider before it calls any other
    method, closes it when it ends, and may open it again.

    Methods are called from one trio thread. They are safe to call concurrently for different objects. Every await of
    a method can be cancelled. A cancelled call leaves nothing behind, or something that calling it again, ``list`` and
    ``remove`` put right; the provider stays usable.

    Errors are those of ``nanocloud.errors``: the ones that a method names, else ProviderError. A message is one line
    that names the object.
    """

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """How the configuration selects this provider; unique within its contract, RFC 1123 label."""

    @abc.abstractmethod
    def lifespan(self) -> AbstractAsyncContextManager[None]:
        """Prepare what the provider needs, hold it while the body runs, then let go.

        Usually written with ``@asynccontextmanager``; it may keep a nursery for workers of its own. Entering is
        idempotent on the host: a node that was killed enters again and finds what it left. Leaving must not stop
        what outlives the server (containers, networks, mounts).

        Raises:
            ProviderError: the host lacks something; the message says what and how to get it.
        """

    async def __aenter__(self) -> Self:
        entered = self.lifespan()
        object.__setattr__(self, "_entered", entered)  # a provider may be a frozen attrs class
        await entered.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        entered: AbstractAsyncContextManager[None] = object.__getattribute__(self, "_entered")
        return await entered.__aexit__(kind, value, traceback)


class Removable(abc.ABC):
    """An optional power: take everything off the host that the provider ever made (``nanocloud reset``)."""

    @abc.abstractmethod
    async def purge(self) -> None:
        """Remove every trace, of this provider's life and of earlier ones. Called on a provider that is not open;
        repeats safely."""
