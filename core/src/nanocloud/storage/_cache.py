"""Records in memory, so that a key that is read again costs no SQLite: 10 us, most of them file locks.

Only the trio thread touches it. A record is kept only while no transaction that writes its key is under way: from the
moment one is handed to the writer until its outcome is reported, reads of that key go to the disk. So what is here is
always what the disk has, and a read sees neither more nor less than it would without.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nanocloud.providers.storage import Record

_MAX_BYTES = 4 << 20
_MAX_RECORD_BYTES = 64 << 10
_OVERHEAD_BYTES = 512  # of the objects around key and value


class RecordCache:
    """The records that were read or written last, in bounded memory."""

    def __init__(self) -> None:
        self._records: OrderedDict[bytes, Record] = OrderedDict()
        self._size_bytes = 0
        self._being_written: dict[bytes, int] = {}

    def get(self, key: bytes) -> Record | None:
        """None where it is not kept, whatever the disk has."""
        record = self._records.get(key)
        if record is not None:
            self._records.move_to_end(key)
        return record

    def add(self, record: Record) -> None:
        """Keep what the disk has just given or taken, if that may be."""
        if record.key in self._being_written or len(record.value) > _MAX_RECORD_BYTES or record.key in self._records:
            return
        self._records[record.key] = record
        self._size_bytes += _size_bytes(record)
        while self._size_bytes > _MAX_BYTES:
            _, oldest = self._records.popitem(last=False)
            self._size_bytes -= _size_bytes(oldest)

    def begin_writing(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            self._being_written[key] = self._being_written.get(key, 0) + 1
            if (record := self._records.pop(key, None)) is not None:
                self._size_bytes -= _size_bytes(record)

    def end_writing(self, keys: Iterable[bytes]) -> None:
        """The disk has the outcome, whatever it was."""
        for key in keys:
            if self._being_written[key] == 1:
                del self._being_written[key]
            else:
                self._being_written[key] -= 1


def _size_bytes(record: Record) -> int:
    return len(record.key) + len(record.value) + _OVERHEAD_BYTES
