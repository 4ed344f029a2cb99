"""Records in memory, so that a key that is read again costs no SQLite: 10 us, most of them file locks.

Only the trio thread touches it. A record is given out only while no transaction that writes its key is under way: from
the moment one is handed to the writer until its outcome is reported, reads of that key go to the disk. So what comes
from here is always what the disk has, and a read sees neither more nor less than it would without.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
        if record is None or key in self._being_written:
            return None
        self._records.move_to_end(key)
        return record

    def add(self, record: Record) -> None:
        """Keep what the disk has just given, if that may be."""
        if record.key not in self._being_written and record.key not in self._records:
            self._keep(record)

    def begin_writing(self, key: bytes) -> None:
        self._being_written[key] = self._being_written.get(key, 0) + 1

    def end_writing(self, key: bytes, record: Record | None) -> None:
        """The disk has the outcome: ``record``, or None where there is none, or it is not known."""
        if (writes := self._being_written[key]) > 1:
            self._being_written[key] = writes - 1
            return
        del self._being_written[key]
        if (old := self._records.pop(key, None)) is not None:
            self._size_bytes -= _size_bytes(old)
        if record is not None:
            self._keep(record)

    def _keep(self, record: Record) -> None:
        if len(record.value) > _MAX_RECORD_BYTES:
            return
        self._records[record.key] = record
        self._size_bytes += _size_bytes(record)
        while self._size_bytes > _MAX_BYTES:
            _, oldest = self._records.popitem(last=False)
            self._size_bytes -= _size_bytes(oldest)


def _size_bytes(record: Record) -> int:
    return len(record.key) + len(record.value) + _OVERHEAD_BYTES
