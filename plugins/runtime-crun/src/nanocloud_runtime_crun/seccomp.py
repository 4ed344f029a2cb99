"""Seccomp profiles: JSON files in the form that container engines share, made into ``linux.seccomp`` for one container.

A profile has ``defaultAction``, ``defaultErrnoRet``, ``archMap`` and ``syscalls``; each of these has ``names``,
``action``, ``errnoRet``, ``args`` and may be bound to capabilities or architectures: with ``includes`` it holds only
where the container has all the capabilities and the machine is one of ``arches``, with ``excludes`` only where it has
none of them. Without ``archMap`` only the machine's own calling convention is let through.

Source: OCI runtime specification, config-linux.md, "Seccomp"; the file form is that of ``seccompProfile: Localhost``.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from nanocloud.errors import FieldError, InvalidError
from nanocloud.providers.runtime import SeccompProfile, Security

_FILES = {SeccompProfile.BASELINE: "baseline.json", SeccompProfile.RUNTIME_DEFAULT: "runtime-default.json"}
_MAX_FILE_BYTES = 1024 * 1024
_ARCHITECTURES = {
    "x86_64": ("SCMP_ARCH_X86_64", "amd64"),
    "aarch64": ("SCMP_ARCH_AARCH64", "arm64"),
    "riscv64": ("SCMP_ARCH_RISCV64", "riscv64"),
    "ppc64le": ("SCMP_ARCH_PPC64LE", "ppc64le"),
    "s390x": ("SCMP_ARCH_S390X", "s390x"),
}
_ACTIONS = {f"SCMP_ACT_{name}" for name in ("ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "KILL_THREAD", "LOG", "TRAP")}


def for_container(security: Security, capabilities: frozenset[str]) -> dict[str, Any] | None:
    """``linux.seccomp``; None for a privileged container, which is not filtered.

    Raises:
        InvalidError: a ``Localhost`` profile that cannot be read or is no profile.
    """
    if security.privileged:
        return None
    machine = os.uname().machine
    if security.seccomp is not SeccompProfile.LOCALHOST:
        return _built_in(security.seccomp, capabilities, machine)
    if security.seccomp_path is None:
        raise _invalid("a path is needed with the profile Localhost")
    return compile_profile(_read(security.seccomp_path), capabilities, machine)


@lru_cache(maxsize=64)
def _built_in(profile: SeccompProfile, capabilities: frozenset[str], machine: str) -> dict[str, Any]:
    text = (resources.files("nanocloud_runtime_crun") / "profiles" / _FILES[profile]).read_text()
    return compile_profile(json.loads(text), capabilities, machine)


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
        if len(data) > _MAX_FILE_BYTES:
            raise _invalid(f"{path} has more than {_MAX_FILE_BYTES} bytes")
        return json.loads(data)
    except OSError as exc:
        raise _invalid(f"{path} cannot be read: {exc.strerror}") from exc
    except (ValueError, RecursionError) as exc:
        raise _invalid(f"{path} is no JSON: {exc}") from exc


def compile_profile(profile: Any, capabilities: frozenset[str], machine: str) -> dict[str, Any]:
    """What of ``profile`` holds for a container with these capabilities on this machine.

    Raises:
        InvalidError: names the member that is wrong and what is allowed.
    """
    if not isinstance(profile, dict):
        raise _invalid("a profile is a JSON object")
    result: dict[str, Any] = {"defaultAction": _action(profile.get("defaultAction"), "defaultAction")}
    if "defaultErrnoRet" in profile:
        result["defaultErrnoRet"] = _errno(profile["defaultErrnoRet"], "defaultErrnoRet")
    result["architectures"] = _architectures(profile.get("archMap", []), machine)
    rules = profile.get("syscalls", [])
    if not isinstance(rules, list):
        raise _invalid("syscalls is a list")
    result["syscalls"] = [
        _rule(rule, f"syscalls[{number}]")
        for number, rule in enumerate(rules)
        if _applies(rule, f"syscalls[{number}]", capabilities, machine)
    ]
    return result


def _architectures(mapping: Any, machine: str) -> list[str]:
    native = _ARCHITECTURES.get(machine)
    if native is None:
        raise InvalidError(f"no seccomp profile is known for {machine}; one of {', '.join(_ARCHITECTURES)} is needed")
    for entry in mapping if isinstance(mapping, list) else ():
        if isinstance(entry, dict) and entry.get("architecture") == native[0]:
            return [native[0], *map(str, entry.get("subArchitectures") or ())]
    return [native[0]]


def _applies(rule: Any, where: str, capabilities: frozenset[str], machine: str) -> bool:
    if not isinstance(rule, dict):
        raise _invalid(f"{where} is an object")
    names = {machine, *_ARCHITECTURES.get(machine, ())}
    includes, excludes = _condition(rule, "includes", where), _condition(rule, "excludes", where)
    if not set(includes.get("caps", ())) <= capabilities or set(excludes.get("caps", ())) & capabilities:
        return False
    return not (
        ("arches" in includes and not names & set(includes["arches"])) or names & set(excludes.get("arches", ()))
    )


def _condition(rule: dict[str, Any], key: str, where: str) -> dict[str, list[str]]:
    condition = rule.get(key) or {}
    if not isinstance(condition, dict) or not all(
        isinstance(values, list) and all(isinstance(value, str) for value in values)
        for name, values in condition.items()
        if name in ("caps", "arches")
    ):
        raise _invalid(f"{where}.{key} holds lists of names: caps, arches")
    return condition


def _rule(rule: dict[str, Any], where: str) -> dict[str, Any]:
    names = rule.get("names")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise _invalid(f"{where}.names is a list of system calls")
    result: dict[str, Any] = {"names": names, "action": _action(rule.get("action"), f"{where}.action")}
    if "errnoRet" in rule:
        result["errnoRet"] = _errno(rule["errnoRet"], f"{where}.errnoRet")
    if arguments := rule.get("args"):
        if not isinstance(arguments, list) or not all(isinstance(argument, dict) for argument in arguments):
            raise _invalid(f"{where}.args is a list of objects")
        result["args"] = arguments
    return result


def _action(value: Any, where: str) -> str:
    if value not in _ACTIONS:
        raise _invalid(f"{where} is {value!r}; one of {', '.join(sorted(_ACTIONS))} is allowed")
    return str(value)


def _errno(value: Any, where: str) -> int:
    if type(value) is not int or not 0 <= value < 4096:
        raise _invalid(f"{where} is {value!r}; a number from 0 to 4095 is allowed")
    return value


def _invalid(message: str) -> InvalidError:
    return InvalidError(f"seccomp profile: {message}", [FieldError("security.seccomp_path", message)])
