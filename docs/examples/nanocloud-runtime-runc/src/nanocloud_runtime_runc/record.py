"""What was meant with a container: one JSON file in its folder, replaced as a whole.

The phase is written before the step that it names. Whoever finds ``CREATING`` or ``REMOVING`` after a kill has
something to take down; a record that cannot be read is one, too.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from nanocloud_runtime_runc.processes import Process


class Phase(enum.Enum):
    CREATING = "creating"
    CREATED = "created"
    REMOVING = "removing"


@attrs.frozen
class Refusal:
    """Why the program cannot be run; known to runc when it makes the container, told when it is started."""

    code: int
    """127: not found; 126: cannot be executed."""
    reason: str


@attrs.frozen(kw_only=True)
class Record:
    phase: Phase
    labels: Mapping[str, str]
    log_path: Path
    stop_signal: int
    created_at: float
    started_at: float | None = None
    """Written before the start: whether the program runs is the kernel's word."""
    refusal: Refusal | None = None
    first: Process | None = None
    """The container's first process."""
    monitor: Process | None = None


def read(file: Path) -> Record | None:
    """None where there is no record that could be read."""
    try:
        fields: dict[str, Any] = json.loads(file.read_text())
        return Record(
            phase=Phase(fields["phase"]),
            labels=fields["labels"],
            log_path=Path(fields["log_path"]),
            stop_signal=fields["stop_signal"],
            created_at=fields["created_at"],
            started_at=fields["started_at"],
            refusal=Refusal(**fields["refusal"]) if fields["refusal"] else None,
            first=Process(**fields["first"]) if fields["first"] else None,
            monitor=Process(**fields["monitor"]) if fields["monitor"] else None,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(file: Path, record: Record) -> None:
    """A reader and a crash see the old one or the new one."""
    fields = attrs.asdict(record) | {"phase": record.phase.value, "log_path": str(record.log_path)}
    new = file.with_suffix(".new")
    new.write_text(json.dumps(fields))
    new.rename(file)
