"""The last changes in memory, so that who follows the history at its end needs no SQLite.

Only the trio thread touches it. It holds a gapless run of transactions up to the last one that was reported, bounded in
count and bytes; whatever lies further back is read from the disk.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from nanocloud.providers.storage import ChangePage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nanocloud.providers.storage import RecordChange

_MAX_TRANSACTIONS = 1024
_MAX_BYTES = 2 << 20  # less than a page of changes may have


class RecentChanges:
    """Every change after revision ``floor``, up to ``revision``."""

    def __init__(self, revision: int) -> None:
        self.floor = self.revision = revision
        self._transactions: deque[tuple[Sequence[RecordChange], int]] = deque()  # one a revision, with its size
        self._size_bytes = 0

    def add(self, changes: Sequence[RecordChange]) -> None:
        """The changes of the next revision."""
        size_bytes = sum(map(_size_bytes, changes))
        self._transactions.append((changes, size_bytes))
        self._size_bytes += size_bytes
        self.revision += 1
        while len(self._transactions) > _MAX_TRANSACTIONS or self._size_bytes > _MAX_BYTES:
            self._drop_oldest()

    def forget(self, revision: int) -> None:
        """What came before ``revision`` is being compacted: whether it can be read is the disk's to say."""
        while self._transactions and self.floor < revision:
            self._drop_oldest()

    def page(self, start: bytes, end: bytes | None, after: int, limit: int) -> ChangePage | None:
        """See StorageProvider.changes; None where ``after`` lies outside of what is here."""
        if not self.floor <= after <= self.revision:
            return None
        found: list[RecordChange] = []
        for index in range(after - self.floor, len(self._transactions)):
            if len(found) >= limit:
                return ChangePage(tuple(found), self.floor + index)
            changes, _ = self._transactions[index]
            found += [change for change in changes if start <= change.key and (end is None or change.key < end)]
        return ChangePage(tuple(found), self.revision)

    def _drop_oldest(self) -> None:
        _, size_bytes = self._transactions.popleft()
        self._size_bytes -= size_bytes
        self.floor += 1


def _size_bytes(change: RecordChange) -> int:
    record, previous = change.record, change.previous
    return (len(record.value) if record is not None else 0) + (len(previous.value) if previous is not None else 0)
