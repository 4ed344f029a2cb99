"""Errors about one object: the general ones, with the kind and the name that clients are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nanocloud.errors import AlreadyExistsError, ConflictError, NanocloudError, NotFoundError

if TYPE_CHECKING:
    from nanocloud.models.kinds import ResourceKind


class ObjectNotFoundError(NotFoundError):
    """No object of that kind and name."""

    def __init__(self, kind: ResourceKind, name: str) -> None:
        super().__init__(f'{kind.resource} "{name}" not found')
        self.kind, self.name = kind, name


class ObjectExistsError(AlreadyExistsError):
    """An object of that kind and name is there already."""

    def __init__(self, kind: ResourceKind, name: str) -> None:
        super().__init__(f'{kind.resource} "{name}" already exists')
        self.kind, self.name = kind, name


class StaleObjectError(ConflictError):
    """The write was based on an older revision than the stored one."""

    def __init__(self, kind: ResourceKind, name: str, *, expected: int, actual: int) -> None:
        super().__init__(f"{kind.resource}/{name}", expected=expected, actual=actual)
        # Clients look for this sentence, which every Kubernetes server answers.
        changed = "the object has been modified; please apply your changes to the latest version and try again"
        self.args = (f'Operation cannot be fulfilled on {kind.resource} "{name}": {changed}',)
        self.kind, self.name = kind, name


class PreconditionError(NanocloudError):
    """The object is not the one that the caller meant: its uid or resourceVersion differs."""

    reason = "Conflict"

    def __init__(self, kind: ResourceKind, name: str, what: str, *, wanted: str, actual: str) -> None:
        super().__init__(
            f'Operation cannot be fulfilled on {kind.resource} "{name}": Precondition failed: '
            f"{what} in precondition: {wanted}, {what} in object meta: {actual}"
        )
        self.kind, self.name = kind, name
