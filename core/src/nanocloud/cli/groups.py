"""Which commands plugins bring, for help and completion.

Asking means importing every plugin. So the answer is remembered in ``commands.json`` in the user's cache folder
(``$XDG_CACHE_HOME/nanocloud`` or ``~/.cache/nanocloud``), together with a mark of what it depends on: the interpreter,
the folders that packages are installed in, and the configuration. Another mark, and the plugins are asked again. To run
a command of a plugin, the plugin itself is always asked.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from nanocloud.errors import NanocloudError

_DEFAULT_CONFIG = "/etc/nanocloud/config.toml"


def known_groups() -> dict[str, str]:
    """Name and help of each; what a broken configuration or plugin hides is missing, and help is still shown."""
    file, mark = _file(), _mark()
    if file is not None and (remembered := _read(file, mark)) is not None:
        return remembered
    from nanocloud.cli.commands import COMMANDS
    from nanocloud.cli.plugins import command_groups

    try:
        groups = {name: group.help for name, group in command_groups().items() if name not in COMMANDS}
    except NanocloudError:
        return {}
    if file is not None:
        _write(file, {"mark": mark, "groups": groups})
    return groups


def forget() -> None:
    """Remove what was remembered."""
    if file := _file():
        try:
            file.unlink()
            file.parent.rmdir()
        except OSError:
            pass  # there is none, or others keep something there


def _file() -> Path | None:
    """None for a user without a home of their own: sudo may leave another's."""
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = Path(given) if given else Path.home() / ".cache"
        owner = folder.parent.stat().st_uid
    except (OSError, RuntimeError):
        return None
    return folder / "nanocloud" / "commands.json" if owner == os.geteuid() else None


def _mark() -> str:
    """Changes when a distribution is installed, upgraded or removed, and when the configuration does."""
    config = os.environ.get("NANOCLOUD_CONFIG") or _DEFAULT_CONFIG
    settings = sorted((k, v) for k, v in os.environ.items() if k.startswith("NANOCLOUD_"))
    return repr((sys.version, [(path, _changed(Path(path))) for path in [*sys.path, config]], settings))


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _read(file: Path, mark: str) -> dict[str, str] | None:
    try:
        found = json.loads(file.read_text())
        return dict(found["groups"]) if found["mark"] == mark else None
    except (OSError, ValueError, TypeError, KeyError):
        return None  # never written, or by another version: ask again


def _write(file: Path, content: object) -> None:
    fresh = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh.write_text(json.dumps(content))
        fresh.replace(file)
    except OSError:
        pass  # a home that is full or read-only: the next help takes as long as this one
