"""The keyspace itself: checks what comes in, turns it into storage transactions, runs the workers.

Durable before it answers: a method that writes returns when the storage has it on the disk. Cancelling one leaves the
write either done or not, never half; the caller reads again.
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from nanocloud.ambient import wall_clock
from nanocloud.errors import (
    CompactedError,
    ConflictError,
    FieldError,
    FutureRevisionError,
    InvalidError,
    LimitExceededError,
    NotFoundError,
)
from nanocloud.keyspace import keys
from nanocloud.keyspace.compaction import keep_revisions
from nanocloud.keyspace.entries import Compare, Delete, Page, Put, entry_of
from nanocloud.keyspace.expiry import ExpiryWorker
from nanocloud.keyspace.index import Index
from nanocloud.keyspace.watch import WatchHub
from nanocloud.providers.storage import (
    MAX_OPERATIONS,
    MAX_VALUE_BYTES,
    RecordCheck,
    RecordDelete,
    RecordPut,
    Rejected,
    Transaction,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from nanocloud.keyspace.entries import Entry
    from nanocloud.keyspace.keys import Key
    from nanocloud.keyspace.watch import Watcher
    from nanocloud.providers.storage import Committed, StorageInfo, StorageProvider

KEEP_REVISIONS = 10_000


class Keyspace:
    """Made by ``open``. All methods are for the trio thread that opened it."""

    def __init__(self, storage: StorageProvider, info: StorageInfo, clock: Callable[[], float]) -> None:
        self._storage, self._clock = storage, clock
        self._expiry = ExpiryWorker(storage, clock)
        self._hub = WatchHub(storage, info.revision, self._expiry.hint)
        self._revision, self._compacted = info.revision, info.compacted

    @classmethod
    @asynccontextmanager
    async def open(
        cls, storage: StorageProvider, *, clock: Callable[[], float] = wall_clock, keep: int = KEEP_REVISIONS
    ) -> AsyncIterator[Keyspace]:
        """Run a keyspace on an entered storage. Keys that expired meanwhile are gone before the body runs.

        Args:
            clock: the wall clock, in seconds since the epoch; tests derive one from trio's.
            keep: how many revisions stay readable; older ones are compacted as new ones come.
        """
        keyspace = cls(storage, await storage.info(), clock)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keyspace._hub.run)
            nursery.start_soon(lambda: keep_revisions(storage, keyspace.compact, revisions=keep))
            await nursery.start(lambda task_status: keyspace._expiry.run(task_status=task_status))
            yield keyspace
            nursery.cancel_scope.cancel()

    @property
    def revision(self) -> int:
        """Of the last transaction known to be committed: at least that of every call that returned."""
        return max(self._revision, self._hub.revision)

    @property
    def compacted(self) -> int:
        """History before this revision is forgotten."""
        return self._compacted

    async def get(self, key: Key, *, revision: int | None = None) -> Entry | None:
        """The entry, now or at ``revision``; None if there is none.

        Raises:
            CompactedError, FutureRevisionError: ``revision`` is not readable any more, or yet.
        """
        record = await self._storage.get(keys.encode(key), revision=revision)
        return None if record is None else entry_of(record, key)

    async def list(
        self, prefix: Key, *, after: Key | None = None, limit: int | None = None, revision: int | None = None
    ) -> Page:
        """The entries below ``prefix`` (and at it), sorted by key, from one state.

        Args:
            after: only keys that come after this one.
            limit: at most so many; None: all.

        Raises:
            CompactedError, FutureRevisionError: ``revision`` is not readable any more, or yet.
        """
        if limit is not None and limit < 1:
            raise _invalid("limit", f"{limit} is no limit: it must be at least 1")
        start, end = keys.prefix_range(prefix)
        if after is not None:
            start = max(start, keys.after(after))
        page = await self._storage.range(start, end, limit=limit, revision=revision)
        return Page(tuple(map(entry_of, page.records)), page.revision, page.more)

    async def put(
        self, key: Key, value: bytes, *, expect: int | None = None, ttl_seconds: float | None = None
    ) -> Entry:
        """Write one key.

        Args:
            expect: the mod revision the key must have; 0: it must not exist; None: whatever it is.
            ttl_seconds: delete the key after so long, unless it is written again.

        Raises:
            ConflictError: the key is not at ``expect``.
            LimitExceededError, InvalidError: the value is too large; the key or a number cannot be.
        """
        compares = () if expect is None else (Compare(key, expect),)
        committed = await self._commit(compares, (Put(key, value, ttl_seconds),))
        assert committed.records[0] is not None
        return entry_of(committed.records[0], key)

    async def delete(self, key: Key, *, expect: int | None = None) -> int:
        """Remove one key and return the revision of that.

        Raises:
            NotFoundError: there is none.
            ConflictError: the key is not at ``expect``.
        """
        compares = () if expect is None else (Compare(key, expect),)
        committed = await self._commit(compares, (Delete(key),))
        if not committed.changed:
            raise NotFoundError(f"{keys.display(key)} does not exist")
        return committed.revision

    async def transact(self, compares: Sequence[Compare], operations: Sequence[Put | Delete]) -> int:
        """Do every operation if every compare holds, as one revision, and return it.

        Where nothing changes (deletes of what is not there) the revision is the keyspace's last.

        Raises:
            ConflictError: a compare did not hold; names the first such key.
            LimitExceededError, InvalidError: too much, or a key twice among the operations.
        """
        return (await self._commit(compares, operations)).revision

    @asynccontextmanager
    async def watch(self, prefix: Key, *, after: int) -> AsyncIterator[Watcher]:
        """Follow the changes below ``prefix`` (and at it) that come after revision ``after``.

        Raises:
            CompactedError: some of them are forgotten: list again. Also out of the iteration of a slow reader.
            FutureRevisionError: ``after`` is not reached yet.
        """
        keys.prefix_range(prefix)
        info = await self._storage.info()
        self._compacted = max(self._compacted, info.compacted)
        if after > info.revision:
            raise FutureRevisionError(requested=after, current=info.revision)
        if after < info.compacted:
            raise CompactedError(requested=after, compacted=info.compacted)
        watcher = self._hub.add(prefix, after)
        try:
            yield watcher
        finally:
            self._hub.remove(prefix, watcher)

    def index(self, prefix: Key, groups_of: Callable[[Entry], Iterable[str]]) -> Index:
        """An index of what is below ``prefix`` (and at it), for as long as the keyspace is open."""
        return Index(self, self._hub, prefix, groups_of)

    async def compact(self, revision: int) -> None:
        """Forget history before ``revision``; repeats safely.

        Raises:
            FutureRevisionError: ``revision`` is not reached yet.
        """
        current = (await self._storage.info()).revision  # what others wrote, and whose answer was lost, counts too
        if revision > current:
            raise FutureRevisionError(requested=revision, current=current)
        await self._hub.reached(revision)  # a watcher that keeps up must not lose its place
        await self._storage.compact(revision)
        self._compacted = max(self._compacted, revision)

    async def _commit(self, compares: Sequence[Compare], operations: Sequence[Put | Delete]) -> Committed:
        outcome = await self._storage.transact(self._transaction(compares, operations))
        if isinstance(outcome, Rejected):
            key = keys.display(keys.decode(outcome.key))
            raise ConflictError(key, expected=outcome.expected, actual=outcome.actual)
        self._revision = max(self._revision, outcome.revision)
        return outcome

    def _transaction(self, compares: Sequence[Compare], operations: Sequence[Put | Delete]) -> Transaction:
        if len(operations) > MAX_OPERATIONS or len(compares) > MAX_OPERATIONS:
            count = max(len(operations), len(compares))
            raise LimitExceededError(f"a transaction of {count} steps; at most {MAX_OPERATIONS} are allowed")
        checks = [RecordCheck(keys.encode(compare.key), compare.mod_revision) for compare in compares]
        translated = [self._operation(operation) for operation in operations]
        if len(translated) > 1 and len({operation.key for operation in translated}) != len(translated):
            raise _invalid("operations", "a transaction must not write one key twice")
        return Transaction(tuple(checks), tuple(translated))

    def _operation(self, operation: Put | Delete) -> RecordPut | RecordDelete:
        key = keys.encode(operation.key)
        if isinstance(operation, Delete):
            return RecordDelete(key)
        value, ttl = operation.value, operation.ttl_seconds
        if not isinstance(value, bytes):
            raise _invalid("value", f"the value of {_name(operation)} is {type(value).__name__}; it must be bytes")
        if len(value) > MAX_VALUE_BYTES:
            raise LimitExceededError(
                f"the value of {_name(operation)} has {len(value)} bytes; at most {MAX_VALUE_BYTES} are allowed"
            )
        if ttl is None:
            return RecordPut(key, value)
        if not (0 < ttl < math.inf):
            message = f"the time to live of {_name(operation)} is {ttl} s; it must be positive and finite"
            raise _invalid("ttl_seconds", message)
        return RecordPut(key, value, self._clock() + ttl)


def _name(put: Put) -> str:
    return keys.display(put.key)


def _invalid(field: str, message: str) -> InvalidError:
    return InvalidError(message, (FieldError(field, message),))
