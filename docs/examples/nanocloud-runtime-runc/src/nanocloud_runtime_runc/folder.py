"""A container's folder on the tmpfs: everything that is known of it, and everything that must not reach a disk.

    record.json    what was meant: see ``record``
    config.json    the OCI configuration; holds the environment
    rootfs/        where the container's root file system is mounted
    files/<n>      the projected files, in the order of the spec
    exit/<id>      the exit code, written by conmon when all is over
    monitor.pid    of conmon, first.pid of the container's first process

The folder is the claim to the id, so it is made first; and it goes last, for it says that work is left.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs

from nanocloud.providers.runtime import ContainerId, ExitStatus
from nanocloud_runtime_runc import record
from nanocloud_runtime_runc.record import Record


@attrs.frozen
class Folder:
    path: Path

    @property
    def id(self) -> ContainerId:
        return ContainerId(self.path.name)

    @property
    def rootfs(self) -> Path:
        return self.path / "rootfs"

    @property
    def files(self) -> Path:
        return self.path / "files"

    @property
    def exits(self) -> Path:
        return self.path / "exit"

    def claim(self) -> None:
        """Raises FileExistsError where the id is taken."""
        self.path.mkdir(mode=0o700)
        for inner in (self.rootfs, self.files, self.exits):
            inner.mkdir(mode=0o700)

    def record(self) -> Record | None:
        return record.read(self.path / "record.json")

    def write_record(self, new: Record) -> None:
        record.write(self.path / "record.json", new)

    def configuration(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.path / "config.json").read_text())
        return found

    def write_configuration(self, configuration: dict[str, Any]) -> None:
        file = self.path / "config.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(configuration))

    def exit(self) -> ExitStatus | None:
        """How it ended, as conmon has left it; whether memory was the reason is known to the control group."""
        file = self.exits / self.id
        try:
            return ExitStatus(code=int(file.read_text()), finished_at=file.stat().st_mtime)
        except FileNotFoundError:
            return None

    def write_exit(self, code: int) -> None:
        """Where conmon cannot, or does not know better."""
        new = self.path / "exit.new"
        new.write_text(str(code))
        new.rename(self.exits / self.id)
