"""What cannot change in a volume that exists: its size and its encryption. Its mount path can.

The rule holds twice. A write to a Bundle is refused at the door, so that every client is told at once; that looks only
at options that the user gives. Planning looks at what they come to, whatever they were made from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from nanocloud.errors import FieldError, InvalidError
from nanocloud.planning.quantity import parse_bytes
from nanocloud.planning.reserved import Reserved, reserved

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from nanocloud.extension import Requester
    from nanocloud.models.kinds import ResourceKind
    from nanocloud.planning.workload import Claim

VOLUME_KEY, FS_TYPE = "nanocloud.io/volume-key", "nanocloud.io/fs-type"
_HINT = "leave the option out; another volume takes uninstalling, which loses its data, and installing again"


class FixedVolumes:
    """Refuses writes to a Bundle that ask for another volume than the one that is there."""

    name = "fixed-volumes"

    def admit(
        self,
        operation: Literal["create", "update"],
        kind: ResourceKind,
        obj: dict[str, Any],
        old: dict[str, Any] | None,
        requester: Requester,
    ) -> dict[str, Any]:
        if kind.kind == "Bundle" and old is not None:
            _raise(_given_anew(obj, old))
        return obj


def refuse_other_volumes(planned: Iterable[Claim], stored: Mapping[str, dict[str, Any]]) -> None:
    """Hold planned claims against the PersistentVolumeClaims that are there, by name.

    Raises:
        InvalidError: names each option that asks for another volume, and what is there.
    """
    problems = []
    for claim in planned:
        found = stored.get(claim.name)
        if found is None:
            continue
        index = claim.volume.removeprefix("volume-")
        size = ((found.get("spec") or {}).get("resources") or {}).get("requests", {}).get("storage", "")
        if size and parse_bytes(size) != claim.size_bytes:
            problems.append(_other_size(f"volume_size_{index}", claim.size, size))
        notes = (found.get("metadata") or {}).get("annotations") or {}
        present = notes.get(VOLUME_KEY), notes.get(FS_TYPE, "ext4")
        if (claim.encryption_key, claim.fs_type) != present:
            problems.append(_other_encryption(f"volume_encrypted_{index}", present[0]))
    _raise(problems)


def _given_anew(bundle: dict[str, Any], old: dict[str, Any]) -> list[FieldError]:
    """Options of a new spec against those in the status, which stand there once the claims exist."""
    spec, present = bundle.get("spec"), (old.get("status") or {}).get("options") or {}
    options = spec.get("options") if isinstance(spec, dict) else None
    found = []
    for name, value in options.items() if isinstance(options, dict) else ():
        kind = reserved(name)
        if kind is None or f"volume_{kind[1]}" not in present or not isinstance(value, str):
            continue
        if kind[0] is Reserved.VOLUME_SIZE and not _same_size(value, present.get(name, value)):
            found.append(_other_size(name, value, present[name]))
        if kind[0] is Reserved.VOLUME_ENCRYPTED and value != present.get(name):
            found.append(_other_encryption(name, present.get(name)))
    return found


def _same_size(one: str, other: str) -> bool:
    try:
        return parse_bytes(one) == parse_bytes(other)
    except ValueError:
        return one == other


def _other_size(option: str, wanted: str, present: str) -> FieldError:
    message = f"{wanted[:60]!r} is asked for, but the volume is there with {present}: a volume keeps its size"
    return FieldError(f"spec.options.{option}", message, "FieldValueForbidden")


def _other_encryption(option: str, present: str | None) -> FieldError:
    there = f"encrypted with {present}" if present else "without encryption"
    message = f"the volume is there {there}: that cannot change any more"
    return FieldError(f"spec.options.{option}", message, "FieldValueForbidden")


def _raise(problems: list[FieldError]) -> None:
    if problems:
        shown = "; ".join(f"{p.field.removeprefix('spec.options.')}: {p.message}" for p in problems)
        raise InvalidError(shown, problems, hint=_HINT)
