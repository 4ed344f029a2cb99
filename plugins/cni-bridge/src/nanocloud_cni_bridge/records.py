"""Small JSON records in a folder, one file each, that a ``kill -9`` never leaves half-written.

A record is written to a temporary name and renamed, without fsync: both kinds of record kept here may be lost with
the power. Attachments die with the kernel anyway, and a lost reservation only costs an owner its habitual address.
A file that does not read back (a power cut can leave it empty) counts as lost: it is removed with a warning.
"""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

_SUFFIX = ".json"
_TEMPORARY = ".new"


class RecordFolder:
    """``name`` must be safe as a file name; every caller passes a validated id or a hash."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in self.path.glob(f"*{_TEMPORARY}"):
            leftover.unlink(missing_ok=True)

    def write(self, name: str, record: dict[str, Any]) -> None:
        temporary = self.path / (name + _TEMPORARY)
        temporary.write_text(json.dumps(record))
        temporary.rename(self.path / (name + _SUFFIX))

    def remove(self, name: str) -> None:
        (self.path / (name + _SUFFIX)).unlink(missing_ok=True)

    def touch(self, name: str) -> None:
        """Make the record the newest of the folder."""
        os.utime(self.path / (name + _SUFFIX))

    def load(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every record that reads back, oldest first."""
        files = [(entry.stat().st_mtime_ns, entry.name, entry) for entry in self.path.glob(f"*{_SUFFIX}")]
        for _, _, file in sorted(files):
            try:
                record = json.loads(file.read_text())
            except (OSError, ValueError) as exc:
                self.discard(file.stem, str(exc))
                continue
            if isinstance(record, dict):
                yield file.stem, record
            else:
                self.discard(file.stem, "not an object")

    def discard(self, name: str, why: str) -> None:
        log.warning("record %s is unusable and removed: %s", self.path / (name + _SUFFIX), why)
        self.remove(name)

    def purge(self) -> None:
        if not self.path.exists():
            return
        for file in self.path.iterdir():
            file.unlink()
        self.path.rmdir()
