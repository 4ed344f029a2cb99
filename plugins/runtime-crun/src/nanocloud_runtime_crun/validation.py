"""What is refused before the host is touched: names that reach paths, targets that would cover the system's mounts."""

from __future__ import annotations

import posixpath
import re
import signal
from typing import TYPE_CHECKING

from nanocloud.errors import FieldError, InvalidError
from nanocloud.providers.runtime import SeccompProfile
from nanocloud_runtime_crun.host import CAPABILITIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from nanocloud.providers.runtime import ContainerSpec, ExecSpec

_ID = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")
_SYSTEM = ("/proc", "/sys", "/dev/pts", "/dev/mqueue")
_LEAST_MEMORY_BYTES = 4 * 1024 * 1024
_MAX_LAYERS = 500  # overlayfs
_MAX_MOUNTS = 1024
_MAX_FILE_BYTES = 4 * 1024 * 1024
_MAX_STRING_BYTES = 128 * 1024  # MAX_ARG_STRLEN, execve(2)
_MAX_STRINGS_BYTES = 1024 * 1024
_MAX_SECRETS = 64


def is_container_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def check_container(spec: ContainerSpec, available: frozenset[str]) -> None:
    """Refuse what no host could run.

    Raises:
        InvalidError: lists every bad field with what is allowed.
    """
    bad: list[FieldError] = []

    def require(good: bool, field: str, message: str) -> None:
        if not good:
            bad.append(FieldError(field, message))

    require(is_container_id(spec.id), "id", f"{spec.id!r} is not of the form {_ID.pattern}")
    require(0 < len(spec.layers) <= _MAX_LAYERS, "layers", f"takes 1 to {_MAX_LAYERS} folders, not {len(spec.layers)}")
    _check_argv(spec.argv, bad)
    _check_environment(spec.environment, bad)
    _check_path(spec.working_directory, "working_directory", bad)
    require(
        not spec.hostname or bool(_HOSTNAME.fullmatch(spec.hostname)),
        "hostname",
        f"{spec.hostname!r} is not of the form {_HOSTNAME.pattern}",
    )
    _check_targets(spec, bad)
    for number, layer in enumerate(spec.layers):
        require(layer.is_absolute(), f"layers[{number}]", f"{str(layer)!r} is not absolute")
    for number, file in enumerate(spec.files):
        require(len(file.content) <= _MAX_FILE_BYTES, f"files[{number}].content", f"exceeds {_MAX_FILE_BYTES} bytes")
        require(0 <= file.mode <= 0o777, f"files[{number}].mode", f"{file.mode:#o} is not from 0 to 0o777")
    limits = spec.resources
    memory_fits = limits.memory_bytes is None or limits.memory_bytes >= _LEAST_MEMORY_BYTES
    require(memory_fits, "resources.memory_bytes", f"{limits.memory_bytes} is less than {_LEAST_MEMORY_BYTES}")
    for name, value in (("cpu_millicores", limits.cpu_millicores), ("pids", limits.pids)):
        require(value is None or value > 0, f"resources.{name}", f"{value} is not above 0")
    _check_capabilities(spec.security.capabilities, available, bad)
    localhost = spec.security.seccomp is SeccompProfile.LOCALHOST
    require(not localhost or spec.security.seccomp_path is not None, "security.seccomp_path", "is needed for Localhost")
    require(spec.stop_signal in signal.Signals.__members__, "stop_signal", f"{spec.stop_signal!r} is no signal's name")
    log = spec.log_path
    # conmon takes a colon for the end of the log driver's name, and writes ``<name>.tmp`` when it starts the log anew.
    log_fits = log.is_absolute() and bool(log.name) and ":" not in log.name and len(log.name.encode()) <= 250
    require(log_fits, "log_path", f"{str(log)!r} is not absolute, or its name has a colon or more than 250 bytes")
    require(spec.log_limit_bytes > 0, "log_limit_bytes", f"{spec.log_limit_bytes} is not above 0")
    _raise(f"container {spec.id!r}", bad)


def check_exec(container: str, spec: ExecSpec, available: frozenset[str]) -> None:
    """The same for one more process.

    Raises:
        InvalidError: lists every bad field with what is allowed.
    """
    bad: list[FieldError] = []
    _check_argv(spec.argv, bad)
    _check_environment(spec.environment or {}, bad)
    if spec.working_directory is not None:
        _check_path(spec.working_directory, "working_directory", bad)
    _check_capabilities(spec.capabilities or frozenset(), available, bad)
    if len(spec.secrets) > _MAX_SECRETS:
        bad.append(FieldError("secrets", f"takes at most {_MAX_SECRETS}, not {len(spec.secrets)}"))
    _raise(f"exec in {container}", bad)


def _raise(what: str, bad: list[FieldError]) -> None:
    if bad:
        raise InvalidError(f"{what} is invalid: " + "; ".join(f"{b.field}: {b.message}" for b in bad), bad)


def _check_argv(argv: tuple[str, ...], bad: list[FieldError]) -> None:
    if not argv or not argv[0]:
        bad.append(FieldError("argv", "names no program", "FieldValueRequired"))
    _check_strings(argv, "argv", bad)


def _check_environment(environment: Mapping[str, str], bad: list[FieldError]) -> None:
    for name in environment:
        if not name or "=" in name:
            bad.append(FieldError("environment", f"{name!r} is no name of a variable"))
    _check_strings((f"{name}={value}" for name, value in environment.items()), "environment", bad)


def _check_strings(strings: Iterable[str], field: str, bad: list[FieldError]) -> None:
    total = 0
    for text in strings:
        # Never quote the text: it may be a secret.
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            bad.append(FieldError(field, "has a string that is not UTF-8"))
            return
        total += size
        if "\0" in text:
            bad.append(FieldError(field, "has a string with a NUL"))
        if size > _MAX_STRING_BYTES:
            bad.append(FieldError(field, f"has a string of more than {_MAX_STRING_BYTES} bytes"))
    if total > _MAX_STRINGS_BYTES:
        bad.append(FieldError(field, f"has more than {_MAX_STRINGS_BYTES} bytes"))


def _check_path(path: str, field: str, bad: list[FieldError]) -> bool:
    if path.startswith("/") and "\0" not in path and ".." not in path.split("/") and len(path) <= 4096:
        return True
    bad.append(FieldError(field, f"{path!r} is not an absolute path without '..'"))
    return False


def _check_targets(spec: ContainerSpec, bad: list[FieldError]) -> None:
    targets = [(f"mounts[{number}].target", mount.target) for number, mount in enumerate(spec.mounts)]
    targets += [(f"files[{number}].path", file.path) for number, file in enumerate(spec.files)]
    targets += [(f"tmpfs[{number}]", target) for number, target in enumerate(spec.tmpfs)]
    if len(targets) > _MAX_MOUNTS:
        bad.append(FieldError("mounts", f"takes at most {_MAX_MOUNTS} mounts, files and tmpfs together"))
    seen: set[str] = set()
    for field, target in targets:
        if not _check_path(target, field, bad):
            continue
        clean = posixpath.normpath(target)
        if clean in ("/", "//", "/dev") or any(clean == p or clean.startswith(p + "/") for p in _SYSTEM):
            bad.append(FieldError(field, f"{target!r} would cover what the runtime mounts there"))
        if clean in seen:
            bad.append(FieldError(field, f"{target!r} is there twice", "FieldValueDuplicate"))
        seen.add(clean)


def _check_capabilities(names: frozenset[str], available: frozenset[str], bad: list[FieldError]) -> None:
    for name in sorted(names - available):
        reason = (
            "is not held by this server" if name in CAPABILITIES else "is no capability; capabilities(7) lists them"
        )
        bad.append(FieldError("security.capabilities", f"{name!r} {reason}"))
