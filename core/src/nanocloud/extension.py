"""What plugins hand to the node besides providers: controllers, admission checks, command groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

    import typer

    from nanocloud.models.kinds import ResourceKind


@runtime_checkable
class Controller(Protocol):
    """A worker that compares desired with observed objects and acts until they agree."""

    @property
    def name(self) -> str:
        """Unique on the node; shown in logs."""

    async def run(self) -> None:
        """Work until cancelled. Returning or raising is a crash: it is logged and run again with back-off."""


@attrs.frozen(kw_only=True)
class Requester:
    """Who asks: a user name and groups, as authenticated."""

    name: str
    groups: frozenset[str] = frozenset()


@runtime_checkable
class Admission(Protocol):
    """A check, or a completion, of objects before they are stored."""

    @property
    def name(self) -> str:
        """Unique on the node; checks run in the order of their names."""

    def admit(
        self,
        operation: Literal["create", "update"],
        kind: ResourceKind,
        obj: dict[str, Any],
        old: dict[str, Any] | None,
        requester: Requester,
    ) -> dict[str, Any]:
        """Return the object to store.

        Raises:
            InvalidError, ForbiddenError: the request is refused with that answer.
        """


@attrs.frozen(kw_only=True)
class CommandGroup:
    """``nanocloud <name> ...``: loaded only when it is used."""

    name: str
    help: str
    load: Callable[[], typer.Typer]
