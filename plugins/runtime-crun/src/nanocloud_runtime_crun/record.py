"""What the runtime remembers of a container, in its folder on the tmpfs.

    <run_dir>/runtime/containers/<id>/
        record.json     this record, replaced as a whole
        config.json     the OCI configuration (holds the environment, so secrets)
        files/<n>       projected files
        exit            folder; ``<id>`` in it holds the exit code as text, its time is the end's
        exec/<n>/       one running exec: process.json until it has started, pid
        layers/<n>  store  volumes/<n>  log  netns  rootfs
                        mount points; empty on the host, filled in the container's view
        monitor.pid  init.pid  monitor.log  attach  ctl  winsz
                        of conmon

Nothing here survives a reboot of the host, and neither does a container. A record says what was meant to happen; what
runs is always asked from the kernel.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import time
from pathlib import Path
from typing import Any

import attrs

from nanocloud.errors import CorruptError, InvalidError
from nanocloud.models.converter import structure, unstructure
from nanocloud_runtime_crun.processes import Process


class Phase(enum.Enum):
    """How far the container has come; each is written before the step that it names, so a crash finds it."""

    CREATING = "creating"
    CREATED = "created"
    STARTING = "starting"
    STARTED = "started"
    REMOVING = "removing"


@attrs.frozen(kw_only=True)
class Failure:
    """Why the program cannot be executed, found while the container was made; told by ``start``."""

    code: int
    message: str


@attrs.frozen(kw_only=True)
class Record:
    id: str
    labels: dict[str, str]
    phase: Phase
    created_at: float
    log_path: str
    stop_signal: str
    started_at: float | None = None
    monitor: Process | None = None
    init: Process | None = None
    failure: Failure | None = None


@attrs.frozen
class Folder:
    """The folder of one container, with the names of what is in it."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def rootfs(self) -> Path:
        return self.path / "rootfs"

    @property
    def store(self) -> Path:
        return self.path / "store"

    def layers(self, count: int) -> list[Path]:
        return [self.path / "layers" / str(number) for number in range(count)]

    @property
    def log(self) -> Path:
        return self.path / "log"

    @property
    def exit_dir(self) -> Path:
        return self.path / "exit"

    @property
    def exit_file(self) -> Path:
        return self.path / "exit" / self.path.name

    @property
    def exec_dir(self) -> Path:
        return self.path / "exec"

    def read(self) -> Record | None:
        """None where there is no record.

        Raises:
            CorruptError: a record that does not read back.
        """
        file = self.path / "record.json"
        try:
            return structure(json.loads(file.read_bytes()), Record, path="record", what=str(file))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, InvalidError) as exc:
            raise CorruptError(f"{file}: {exc}") from exc

    def write(self, record: Record) -> None:
        """Replace the record; a crash leaves the old one or the new one."""
        replace_file(self.path / "record.json", json.dumps(unstructure(record)).encode())

    def read_exit(self) -> tuple[int, float] | None:
        """The exit code and when it was written; None while the container has not ended."""
        try:
            with self.exit_file.open("rb") as file:
                return int(file.read(16)), os.fstat(file.fileno()).st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError:
            return 255, time.time()

    def write_exit(self, code: int, *, replace: bool = False) -> None:
        """Say how the container ended where its monitor cannot; the first word stays unless ``replace``."""
        if replace or self.read_exit() is None:
            replace_file(self.exit_file, str(code).encode())

    def read_config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads(self.config.read_bytes())
        return config


def replace_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write ``path`` as a whole. It lives on a tmpfs: there is nothing to sync."""
    temporary = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        written = memoryview(data)
        while written:
            written = written[os.write(fd, written) :]
    finally:
        os.close(fd)
    temporary.rename(path)
