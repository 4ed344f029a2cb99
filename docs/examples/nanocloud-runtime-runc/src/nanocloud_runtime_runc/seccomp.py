"""Which system calls a container may make, as the filter that runc loads.

Profiles are in the form that container engines share: rules may hold only with or without some capability, and name
architectures as engines do. The runtime specification knows no such conditions: ``compiled`` decides them for one
container. A call that a profile does not know fails with ENOSYS, so that libraries fall back to an older one; a call
that it knows and forbids fails with EPERM.

Source: OCI runtime specification 1.0.2, config-linux.md, "Seccomp"; seccomp(2).
"""

from __future__ import annotations

import errno
import json
import platform
import re
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from nanocloud.errors import InvalidError
from nanocloud.providers.runtime import SeccompProfile, Security
from nanocloud_runtime_runc import syscalls

_ARCHITECTURES = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}
_ENGINE_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}
_NAMESPACES = 0x7E020000
"""Flags of clone(2) that make a namespace: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""
_AF_VSOCK = 40
_ALLOW, _ERRNO = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"
_MOST_BYTES = 1 << 20


def filter_of(security: Security, capabilities: AbstractSet[str], what: str) -> dict[str, Any] | None:
    """``linux.seccomp`` of the configuration; None for a privileged container.

    Raises:
        InvalidError: the file of a LOCALHOST profile cannot be used.
    """
    if security.privileged:
        return None
    if security.seccomp is SeccompProfile.LOCALHOST:
        return compiled(_file(security.seccomp_path, what), capabilities, what)
    return _own(security.seccomp, capabilities)


def _own(profile: SeccompProfile, capabilities: AbstractSet[str]) -> dict[str, Any]:
    wide = profile is SeccompProfile.RUNTIME_DEFAULT
    allowed = set(syscalls.ORDINARY.split()) | (set(syscalls.WIDER.split()) if wide else set())
    for capability, names in syscalls.WITH_CAPABILITY.items():
        if capability in capabilities:
            allowed |= set(names.split())
    rules: list[dict[str, Any]] = [{"names": sorted(allowed), "action": _ALLOW}]
    rules.append(_allow("socket", 0, "SCMP_CMP_NE", _AF_VSOCK))
    for persona in (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF):  # Linux, 32 bits, UNAME26, and asking which it is
        rules.append(_allow("personality", 0, "SCMP_CMP_EQ", persona))
    if "clone" not in allowed:
        # The flags of clone3 lie in memory, where no filter sees them: it is unknown, so that libraries take clone.
        rules.append(_allow("clone", 0, "SCMP_CMP_MASKED_EQ", _NAMESPACES))
    forbidden = sorted(set(syscalls.KNOWN.split()) - allowed - {"clone", "clone3"})
    rules.append({"names": forbidden, "action": _ERRNO, "errnoRet": errno.EPERM})
    architectures = _ARCHITECTURES.get(platform.machine(), ())
    return {
        "defaultAction": _ERRNO,
        "defaultErrnoRet": errno.ENOSYS,
        "architectures": list(architectures if wide else architectures[:1]),
        "syscalls": rules,
    }


def _allow(name: str, argument: int, comparison: str, value: int) -> dict[str, Any]:
    return {"names": [name], "action": _ALLOW, "args": [{"index": argument, "value": value, "op": comparison}]}


def _file(path: Path | None, what: str) -> dict[str, Any]:
    if path is None:
        raise InvalidError(f"{what}: the seccomp profile Localhost needs a file")
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError) as exc:
        raise InvalidError(f"{what}: seccomp profile {path}: {exc}") from exc
    if not isinstance(found, dict) or not isinstance(found.get("defaultAction"), str):
        raise InvalidError(f"{what}: seccomp profile {path} has no defaultAction")
    return found


def compiled(profile: dict[str, Any], capabilities: AbstractSet[str], what: str) -> dict[str, Any]:
    """A profile of engines for one container on this machine.

    Raises:
        InvalidError: it has not the form of a profile.
    """
    machine = platform.machine()
    try:
        kept = [rule for rule in profile.get("syscalls", ()) if _holds(rule, capabilities, machine)]
        rules = [{key: rule[key] for key in ("names", "action", "errnoRet", "args") if rule.get(key)} for rule in kept]
        architectures = profile.get("architectures") or [
            name
            for entry in profile.get("archMap", ())
            if entry["architecture"] in _ARCHITECTURES.get(machine, ())[:1]
            for name in (entry["architecture"], *(entry.get("subArchitectures") or ()))
        ]
    except (AttributeError, KeyError, TypeError) as exc:
        raise InvalidError(f"{what}: the seccomp profile is not in the form of engines: {exc!r}") from exc
    default: dict[str, Any] = {key: profile[key] for key in ("defaultAction", "defaultErrnoRet") if key in profile}
    return {**default, "architectures": architectures, "syscalls": rules}


def _holds(rule: dict[str, Any], capabilities: AbstractSet[str], machine: str) -> bool:
    """Whether a rule's conditions are met: all that it includes, none that it excludes."""
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    names = {machine, _ENGINE_NAMES.get(machine, machine)}
    if not set(includes.get("caps") or ()) <= capabilities or set(excludes.get("caps") or ()) & capabilities:
        return False
    if includes.get("arches") and not names & set(includes["arches"]):
        return False
    if _version(includes.get("minKernel") or "0.0") > _version(platform.release()):
        return False
    return not names & set(excludes.get("arches") or ())


def _version(text: str) -> tuple[int, ...]:
    """Major and minor of a kernel."""
    found = re.match(r"(\d+)\.(\d+)", text)
    if found is None:
        raise TypeError(f"{text!r} is no version of a kernel")
    return int(found[1]), int(found[2])
