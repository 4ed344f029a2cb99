"""The one thread that writes: group commit, compaction between commits, checkpoints when idle.

Callers append transactions to a list; the thread takes the whole list, applies it inside one SQLite transaction with
one sync of the disk, and reports every outcome with one call into trio. While it syncs, the next group gathers. So a
lone writer waits for one sync, and many writers share each. The sweep of a compaction goes along with the groups.

After a sync that failed nobody knows what is on the disk (the kernel may drop the pages and report the next sync as
good), so from then on every write is refused: a restart reads back what is really there.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs
import trio

from nanocloud.errors import CorruptError, NanocloudError, UnavailableError
from nanocloud.storage import _apply
from nanocloud.storage._schema import failure, reserve_journal

if TYPE_CHECKING:
    from pathlib import Path

    from nanocloud.providers.storage import Committed, RecordChange, Rejected, Transaction

log = logging.getLogger(__name__)

_GROUP_TRANSACTIONS = 256
_GROUP_BYTES = 16 << 20
_SWEEP_REVISIONS = 128  # a few milliseconds of deleting, when no writer waits
_SWEEP_REVISIONS_BESIDE = 16  # with a group at the least; twice its size keeps up with any
_LULL_SECONDS = 0.005  # writers that were just told are back within a fraction of it
_IDLE_SECONDS = 0.2
_SYNC_FAILURES = {sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC}


@attrs.define(eq=False)
class Request:
    """A transaction on its way. It ends, in trio, once ``outcome`` or ``error`` is there, or it is withdrawn."""

    transaction: Transaction
    size_bytes: int
    on_end: Callable[[Request], None]
    waiter: trio.lowlevel.Task | None
    """Sleeps until the end, unless it gave up. (An event would do the same for a microsecond more.)"""
    changes: Sequence[RecordChange] = ()
    outcome: Committed | Rejected | None = None
    error: NanocloudError | None = None

    def end(self) -> None:
        self.on_end(self)
        if self.waiter is not None:
            trio.lowlevel.reschedule(self.waiter)


@attrs.define(eq=False)
class Compaction:
    """A request to compact; done when the sweep has passed ``revision``."""

    revision: int
    done: trio.Event = attrs.field(factory=trio.Event)
    error: NanocloudError | None = None

    def end(self) -> None:
        self.done.set()


class Writer:
    """Owns the writing connection from ``start`` to ``close``. Methods are called from the trio thread."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        database: Path,
        revision: int,
        on_commit: Callable[[int, list[Sequence[RecordChange]]], None],
    ) -> None:
        self._connection, self._database = connection, database
        self._revision, self._on_commit = revision, on_commit
        self._trio = trio.lowlevel.current_trio_token()
        self._wakeup = threading.Condition()
        # Shared, under the condition's lock:
        self._requests: list[Request] = []
        self._compactions: list[Compaction] = []
        self._closing = False
        self._broken: NanocloudError | None = None
        # The thread's own:
        self._sweeping: list[Compaction] = []
        self._swept, self._floor = _apply.sweep_range(connection)
        self._checkpointed = self._reserved = self._has_committed = False
        self._newest = _apply.Newest()
        self._thread = threading.Thread(target=self._run, name="nanocloud-storage-writer")

    def start(self) -> None:
        self._thread.start()

    def submit(self, request: Request | Compaction) -> None:
        with self._wakeup:
            if self._closing:
                raise UnavailableError(f"the keyspace file {self._database} is closed")
            if self._broken is not None:
                raise again(self._broken)
            if isinstance(request, Request):
                self._requests.append(request)
            else:
                self._compactions.append(request)
            self._wakeup.notify()

    def withdraw(self, request: Request) -> None:
        """Forget a request if the thread has not taken it up yet."""
        with self._wakeup:
            if request not in self._requests:
                return
            self._requests.remove(request)
        request.end()

    def close(self) -> None:
        """Finish what was submitted, checkpoint, close the connection. Blocks."""
        with self._wakeup:
            self._closing = True
            self._wakeup.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException as exc:  # a bug here must not leave callers waiting for ever
            log.exception("the keyspace writer failed")
            self._break(UnavailableError(f"the keyspace writer failed: {exc!r}", hint="restart the server"))
        finally:
            self._finish()

    def _turn(self) -> bool:
        """One round: commit a group, or sweep a part. When nobody wants anything: checkpoint, or reserve a part of the
        journal. False when it is time to end.
        """
        with self._wakeup:
            while not (self._requests or self._compactions or self._closing):
                if not self._wakeup.wait(self._patience()):
                    break
            group, rest = _split(self._requests)
            self._requests = rest
            compactions, self._compactions = self._compactions, []
            closing = self._closing
        has_committed = self._has_committed = bool(group) and self._commit(group)
        if compactions:
            self._compact(compactions)
        if self._swept < self._floor and not closing and not has_committed:
            self._sweep()
        if not (group or compactions or closing or self._checkpointed):
            self._checkpoint()
        elif not (group or compactions or closing or self._reserved):
            self._reserved = reserve_journal(self._database)
        return not closing or bool(rest)

    def _patience(self) -> float | None:
        """How long to wait for a request before there is something else to do; None: nothing is left."""
        if self._swept < self._floor:
            # What is swept now, and not along with the next group, costs a sync of its own that this group waits for.
            return _LULL_SECONDS if self._has_committed else 0.0
        return None if self._checkpointed and self._reserved else _IDLE_SECONDS

    def _commit(self, group: list[Request]) -> bool:
        """Commit a group, and with it a part of a sweep that is under way: that costs no sync of its own then."""
        swept = self._swept
        together = _apply.Group(self._connection, self._newest, self._revision)
        try:
            if self._broken is not None:  # since these requests came in
                raise self._broken
            self._connection.execute("BEGIN IMMEDIATE")
            for request in group:
                request.outcome, request.changes = together.apply(request.transaction)
            together.write()
            if swept < self._floor:
                swept = min(self._floor, swept + max(_SWEEP_REVISIONS_BESIDE, 2 * len(group)))
                _apply.sweep(self._connection, self._swept, swept)
            self._connection.execute("COMMIT")
        except (sqlite3.Error, NanocloudError) as exc:
            error = exc if isinstance(exc, NanocloudError) else self._failed(exc)
            for request in group:
                request.outcome, request.error = None, error
            self._trio.run_sync_soon(_finish_all, group)
            return False
        except BaseException as exc:
            for request in group:
                request.outcome, request.error = None, UnavailableError(f"the keyspace writer failed: {exc!r}")
            self._trio.run_sync_soon(_finish_all, group)
            raise
        self._revision, self._swept = together.revision, swept
        self._checkpointed = False
        self._trio.run_sync_soon(self._report, group, together.revision)
        together.keep()
        self._report_swept()
        return True

    def _report(self, group: list[Request], revision: int) -> None:
        self._on_commit(revision, [request.changes for request in group if request.changes])
        _finish_all(group)

    def _compact(self, compactions: list[Compaction]) -> None:
        floor = max(compaction.revision for compaction in compactions)
        try:
            # On its own, before any row goes: a reader sees the new floor in every snapshot that lacks rows.
            _apply.raise_floor(self._connection, floor)
        except sqlite3.Error as exc:
            error = self._failed(exc)
            for compaction in compactions:
                compaction.error = error
            self._trio.run_sync_soon(_finish_all, compactions)
            return
        self._checkpointed = False
        self._floor = max(self._floor, floor)
        self._sweeping += compactions
        self._report_swept()

    def _sweep(self) -> None:
        last = min(self._floor, self._swept + _SWEEP_REVISIONS)
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            _apply.sweep(self._connection, self._swept, last)
            self._connection.execute("COMMIT")
        except sqlite3.Error as exc:
            error = self._failed(exc)
            self._floor = self._swept  # the next compaction, or the next start, takes it up again
            failed, self._sweeping = self._sweeping, []
            for compaction in failed:
                compaction.error = error
            self._trio.run_sync_soon(_finish_all, failed)
            return
        self._swept = last
        self._checkpointed = False
        self._report_swept()

    def _report_swept(self) -> None:
        swept = [compaction for compaction in self._sweeping if compaction.revision <= self._swept]
        if swept:
            self._sweeping = [compaction for compaction in self._sweeping if compaction.revision > self._swept]
            self._trio.run_sync_soon(_finish_all, swept)

    def _checkpoint(self) -> None:
        """Move what is in the journal to its place. Passive: it never waits for a reader."""
        self._checkpointed = True
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as exc:
            self._failed(exc)

    def _failed(self, exc: sqlite3.Error) -> NanocloudError:
        """Put the connection back to its last good state; say what happened."""
        error = failure(exc, self._database)
        log.error("%s", error)
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error as worse:
            self._break(failure(worse, self._database))
        if getattr(exc, "sqlite_errorcode", 0) in _SYNC_FAILURES or isinstance(error, CorruptError):
            self._break(error)
        return error

    def _break(self, error: NanocloudError) -> None:
        with self._wakeup:
            self._broken = error

    def _finish(self) -> None:
        """Leave nobody waiting, also when the thread ends by a bug."""
        with self._wakeup:
            self._closing = True
            left: list[Request | Compaction] = [*self._requests, *self._compactions, *self._sweeping]
            self._requests, self._compactions, self._sweeping = [], [], []
        for request in left:
            request.error = self._broken or UnavailableError(f"the keyspace file {self._database} is closed")
        if left:
            self._trio.run_sync_soon(_finish_all, left)
        try:
            self._connection.close()  # the last connection: checkpoints and removes the journal
        except sqlite3.Error as exc:
            log.error("closing %s: %s", self._database, exc)


def _split(requests: list[Request]) -> tuple[list[Request], list[Request]]:
    """The next group, and the rest. A group has at least one request and is bounded in count and bytes."""
    size_bytes = 0
    for count, request in enumerate(requests):
        if count >= _GROUP_TRANSACTIONS or (count and size_bytes + request.size_bytes > _GROUP_BYTES):
            return requests[:count], requests[count:]
        size_bytes += request.size_bytes
    return requests, []


def again(error: NanocloudError) -> NanocloudError:
    """One error for each of several callers: tracebacks must not pile up on a shared one."""
    copy = type(error)(str(error), hint=error.hint)
    copy.__cause__ = error
    return copy


def _finish_all(requests: list[Request] | list[Compaction] | list[Request | Compaction]) -> None:
    for request in requests:
        request.end()
