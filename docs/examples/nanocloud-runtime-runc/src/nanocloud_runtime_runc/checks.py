"""What of a spec cannot be, found before anything is made. Images and users have written most of it."""

from __future__ import annotations

import re
import signal

from nanocloud.errors import InvalidError
from nanocloud.providers.runtime import ContainerSpec

_ID = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")


def is_id(text: str) -> bool:
    """Whether it may become part of a path."""
    return _ID.fullmatch(text) is not None


def check(spec: ContainerSpec) -> None:
    """Raises InvalidError, which names the container and the field; never a value of the environment."""
    if not is_id(spec.id):
        raise InvalidError(f"container {spec.id!r}: an id is {_ID.pattern}")
    what = f"container {spec.id}"
    if not spec.argv or not spec.argv[0]:
        raise InvalidError(f"{what}: argv names no program")
    if spec.stop_signal not in signal.Signals.__members__:
        raise InvalidError(f"{what}: stop_signal {spec.stop_signal!r} is no signal")
    if not spec.layers:
        raise InvalidError(f"{what}: layers is empty: there is no root file system")
    if ":" in str(spec.log_path):
        raise InvalidError(f"{what}: log_path {spec.log_path} holds a colon, which conmon cannot take")
    targets = [*(mount.target for mount in spec.mounts), *(file.path for file in spec.files), *spec.tmpfs]
    for path in (*targets, spec.working_directory):
        if not path.startswith("/"):
            raise InvalidError(f"{what}: {path!r} is not absolute")
    for path in targets:
        if ".." in path.split("/") or not path.strip("/"):
            raise InvalidError(f"{what}: nothing can be mounted at {path!r}")
    for text in (*spec.argv, *targets, spec.working_directory, spec.hostname, spec.user, *map(str, spec.layers)):
        if "\0" in text:
            raise InvalidError(f"{what}: {text!r} holds a zero byte")
    for name, value in spec.environment.items():
        if not name or "=" in name or "\0" in name + value:
            raise InvalidError(f"{what}: environment {name!r} cannot be a variable")
