"""The server side of ``kubectl get``: an object becomes a row of cells.

Source: Kubernetes API concepts, "Receiving resources as Tables" (meta.k8s.io/v1 Table).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nanocloud.ambient import wall_clock
from nanocloud.models.kinds import Column, ResourceKind
from nanocloud.models.meta import Object, name_of, parse_time

NAME = Column("Name", name_of, format="name", description="Name of the object, unique within its namespace and kind.")
AGE = Column(
    "Age", lambda obj: age(obj.get("metadata", {}).get("creationTimestamp")), description="Time since creation."
)


def columns_of(kind: ResourceKind) -> tuple[Column, ...]:
    """All columns of a kind; NAME and AGE are added where the kind does not place them itself.

    AGE stands behind the last column of priority 0, as Kubernetes places it.
    """
    named = {column.name for column in kind.columns}
    found = list(kind.columns)
    if "Age" not in named and "Last Seen" not in named:
        wide = next((i for i, column in enumerate(found) if column.priority > 0), len(found))
        found.insert(wide, AGE)
    if "Name" not in named:
        found.insert(0, NAME)
    return tuple(found)


def definitions(columns: Sequence[Column]) -> list[Object]:
    return [
        {"name": c.name, "type": c.type, "format": c.format, "description": c.description, "priority": c.priority}
        for c in columns
    ]


def cells(columns: Sequence[Column], obj: Object) -> list[Any]:
    row = (column.cell(obj) for column in columns)
    return ["<none>" if value is None else value for value in row]


def age(stamp: object) -> str:
    """Time since an RFC 3339 stamp, as kubectl words it."""
    epoch = parse_time(stamp)
    return "<unknown>" if epoch is None else duration(wall_clock() - epoch)


def duration(seconds: float) -> str:
    """``90`` is ``90s``, ``150`` is ``2m30s``, ``10000`` is ``166m``, then hours, days and years.

    Source: k8s.io/apimachinery, util/duration, HumanDuration.
    """
    s = int(seconds)
    if s < -1:
        return "<invalid>"
    if s < 0:
        return "0s"
    if s < 120:
        return f"{s}s"
    minutes, hours, days = s // 60, s // 3600, s // 86400
    if minutes < 10:
        return _two(minutes, "m", s % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 24 * 8:
        return _two(days, "d", hours % 24, "h")
    if hours < 24 * 365 * 2:
        return f"{days}d"
    years = days // 365
    return _two(years, "y", days % 365, "d") if years < 8 else f"{years}y"


def _two(big: int, big_unit: str, small: int, small_unit: str) -> str:
    return f"{big}{big_unit}{small}{small_unit}" if small else f"{big}{big_unit}"
