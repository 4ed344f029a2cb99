"""The storage contract: an ordered map from byte keys to records, where every change has a revision and a past.

A storage is what the keyspace stands on. It is written so that one can be made from this text alone, on an embedded
file, on lmdb, or on a server such as etcd (whose model this is). What a storage guarantees:

*Revisions.* One counter over the whole store, 0 while it is empty. Each transaction that changes something takes the
next number, once; all its changes carry that number. Numbers are never reused, also not after a crash. One that
changes nothing takes none.

*Atomic and durable.* A transaction takes effect wholly or not at all. What ``transact`` returned survives a crash of
the process and of the machine. Concurrent transactions have an order, the order of their revisions, and each one's
checks are made against the state that all earlier ones left. One that is refused changes nothing and disturbs no other.

*Order.* Keys are compared as unsigned bytes. A key is at most ``MAX_KEY_BYTES`` long, a value ``MAX_VALUE_BYTES``, a
transaction has at most ``MAX_OPERATIONS`` operations; the keyspace holds these limits, a storage need not check them.

*History.* Every state since the last compaction can be read, and every change since then can be listed again.

*Expiry is data.* ``expires_at`` is stored and given back with the value it was written with; a storage never removes
a record by itself. Deleting what has expired is the keyspace's work, by an ordinary transaction.

A read without ``revision`` sees every transaction that was acknowledged before the read began. All methods are safe to
call concurrently from one trio thread. Failures of the disk or the server behind are UnavailableError (the same call
may succeed later), stored data that makes no sense is CorruptError.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

import attrs

from nanocloud.providers.base import Provider

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_KEY_BYTES = 16_384
MAX_VALUE_BYTES = 1_536 * 1024
MAX_OPERATIONS = 512


@attrs.frozen
class Record:
    """A key's state as one transaction left it."""

    key: bytes
    value: bytes
    create_revision: int
    """Of the transaction that made the key; a key that was deleted and made again is a new one."""
    mod_revision: int
    """Of the transaction that wrote this state."""
    version: int
    """Writes since creation: 1 for a new key."""
    expires_at: float | None
    """Seconds since the epoch; None: never."""


@attrs.frozen
class RecordCheck:
    """True where the key's mod revision is ``mod_revision``; 0 stands for a key that does not exist."""

    key: bytes
    mod_revision: int


@attrs.frozen
class RecordPut:
    """Write value and expiry as one; an earlier expiry of the key is replaced, also by None."""

    key: bytes
    value: bytes
    expires_at: float | None = None


@attrs.frozen
class RecordDelete:
    """Remove the key; nothing happens where it does not exist."""

    key: bytes


@attrs.frozen
class Transaction:
    """If every check is true, do every operation. No key occurs in two operations; the caller sees to that."""

    checks: tuple[RecordCheck, ...]
    operations: tuple[RecordPut | RecordDelete, ...]


@attrs.frozen
class Committed:
    """The checks held. ``revision`` is the transaction's own, or the store's last where nothing changed."""

    revision: int
    changed: int
    """How many keys changed: puts, and deletes of keys that existed."""
    records: tuple[Record | None, ...]
    """The state after each operation, in order; None for a delete."""


@attrs.frozen
class Rejected:
    """The first check, in order, that did not hold. Nothing changed."""

    key: bytes
    expected: int
    actual: int
    """The key's mod revision; 0 where it does not exist."""


@attrs.frozen
class RecordChange:
    """One key in one transaction. ``record`` is None for a delete, ``previous`` is None for a creation."""

    key: bytes
    revision: int
    record: Record | None
    previous: Record | None


@attrs.frozen
class RecordPage:
    records: tuple[Record, ...]
    """In the order of their keys."""
    revision: int
    """The state they were read at: the one asked for, else the store's last."""
    more: bool
    """Whether records follow that ``limit`` cut off."""


@attrs.frozen
class ChangePage:
    changes: tuple[RecordChange, ...]
    """In the order of revisions; within one in the order of the transaction's operations."""
    through: int
    """The page is complete up to this revision: reading goes on with ``after=through``."""


@attrs.frozen
class StorageInfo:
    revision: int
    """Of the last committed transaction."""
    compacted: int
    """History before this revision is forgotten; 0: none is."""
    size_bytes: int
    """What the data occupies."""


class StorageProvider(Provider):
    """Keeps the records. Only one server at a time may write: where a storage cannot share, ``lifespan`` refuses a
    second one with LockedError that names the place and the id of the process that holds it."""

    @abc.abstractmethod
    async def transact(self, transaction: Transaction) -> Committed | Rejected:
        """Check and change in one step; durable when it returns.

        Cancelled: the transaction happens wholly or not at all, perhaps a moment later, but never after one that was
        sent later; a caller that cares sends another, and reads then.

        Raises:
            UnavailableError: it did not happen as far as this process can tell: the disk is full, or failed.
        """

    @abc.abstractmethod
    async def get(self, key: bytes, *, revision: int | None = None) -> Record | None:
        """The key's record at ``revision``, default now.

        Raises:
            CompactedError: ``revision`` lies before the compacted one.
            FutureRevisionError: ``revision`` is not reached yet.
        """

    @abc.abstractmethod
    async def range(
        self, start: bytes, end: bytes | None, *, limit: int | None = None, revision: int | None = None
    ) -> RecordPage:
        """The records with ``start <= key < end`` (``end`` None: no upper bound), all from one state.

        At most ``limit``, which is 1 or more, from the lowest key on; None: all of them.

        Raises:
            CompactedError: ``revision`` lies before the compacted one.
            FutureRevisionError: ``revision`` is not reached yet.
        """

    @abc.abstractmethod
    async def changes(self, start: bytes, end: bytes | None, *, after: int, limit: int) -> ChangePage:
        """What changed in the range after revision ``after``, oldest first, without waiting.

        A page holds whole transactions (as far as they touch the range) and ends after about ``limit`` changes, or
        earlier if they are large; it is empty only if nothing changed up to ``through``, which is then the store's
        last revision. ``previous`` is filled in also where its own revision was compacted.

        Raises:
            CompactedError: ``after`` lies before the compacted revision: some changes are forgotten.
            FutureRevisionError: ``after`` is not reached yet.
        """

    @abc.abstractmethod
    async def wait_beyond(self, revision: int) -> int:
        """Wait until a transaction after ``revision`` is committed; return the store's last revision.

        At once where that has happened. Whoever wrote it: with a storage that several servers share, also their
        transactions count.
        """

    @abc.abstractmethod
    async def expiring(self, *, limit: int) -> Sequence[Record]:
        """The ``limit`` existing records that expire first, soonest first; records without expiry never."""

    @abc.abstractmethod
    async def compact(self, revision: int) -> None:
        """Forget states before ``revision``, which itself stays readable; returns when the space is free for reuse.

        Existing records stay, whatever their age; records deleted at or before ``revision`` go for good. Does nothing
        where that much is compacted already. Transactions go on meanwhile. Cancelled or killed, it is finished later.

        Raises:
            FutureRevisionError: ``revision`` is not reached yet.
        """

    @abc.abstractmethod
    async def info(self) -> StorageInfo:
        """The store's numbers, from one state."""
