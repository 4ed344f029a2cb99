"""The ledger: what the server acknowledged to the one writer of an object, and what it may have done besides.

A write whose answer was lost, by a crash or an error, may have happened or not; the next one that is acknowledged
settles the matter, for one writer's writes have an order.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import attrs

S = TypeVar("S")


@attrs.define
class Ledger(Generic[S]):
    """Of one object. A state is whatever its writer compares; None: there is no such object."""

    acknowledged: S | None = None
    doubtful: list[S | None] = attrs.field(factory=list)

    def tried(self, state: S | None) -> None:
        """A write to that state is on its way."""
        self.doubtful.append(state)

    def answered(self) -> None:
        """The last try was acknowledged."""
        self.acknowledged, self.doubtful = self.doubtful[-1], []

    def refused(self) -> None:
        """The last try certainly changed nothing."""
        self.doubtful.pop()

    def allows(self, state: S | None) -> bool:
        return state == self.acknowledged or state in self.doubtful
