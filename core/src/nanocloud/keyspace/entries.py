"""What goes into the keyspace and what comes out: entries, operations, changes."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import attrs

from nanocloud.keyspace.keys import decode

if TYPE_CHECKING:
    from nanocloud.keyspace.keys import Key
    from nanocloud.providers.storage import Record, RecordChange


@attrs.frozen
class Entry:
    """A key's state at one revision."""

    key: Key
    value: bytes = attrs.field(repr=False)  # may be a secret: must not reach a log by accident
    create_revision: int
    mod_revision: int
    version: int
    """Writes since creation: 1 for a new key."""
    expires_at: float | None = None
    """When its lease ends, in seconds since the epoch; None: it has none."""


@attrs.frozen
class Compare:
    """True where the key's mod revision is this one; 0: the key must not exist."""

    key: Key
    mod_revision: int


@attrs.frozen
class Put:
    """Write the key. With ``ttl_seconds`` it lives that long from now; writing it again renews or ends the lease."""

    key: Key
    value: bytes = attrs.field(repr=False)
    ttl_seconds: float | None = None


@attrs.frozen
class Delete:
    """Remove the key; nothing happens where it does not exist."""

    key: Key


class ChangeKind(enum.Enum):
    PUT = "PUT"
    DELETE = "DELETE"


@attrs.frozen
class Change:
    """One key in one transaction."""

    kind: ChangeKind
    key: Key
    entry: Entry | None
    """The new state; None for a delete."""
    previous: Entry | None
    """The state before; None for a creation."""
    revision: int


@attrs.frozen
class Page:
    entries: tuple[Entry, ...]
    """In the order of their keys."""
    revision: int
    """The state they were read at: watch from here, or list the next page at it."""
    more: bool
    """Whether entries follow that the limit cut off; go on with ``after`` the last one's key."""


def entry_of(record: Record, key: Key | None = None) -> Entry:
    """``key`` is the record's own, from those that have it at hand."""
    return Entry(
        decode(record.key) if key is None else key,
        record.value,
        record.create_revision,
        record.mod_revision,
        record.version,
        record.expires_at,
    )


def change_of(change: RecordChange, key: Key | None = None) -> Change:
    """``key`` is the change's own, from those that have it at hand."""
    if key is None:
        key = decode(change.key)
    return Change(
        ChangeKind.DELETE if change.record is None else ChangeKind.PUT,
        key,
        None if change.record is None else entry_of(change.record, key),
        None if change.previous is None else entry_of(change.previous, key),
        change.revision,
    )
