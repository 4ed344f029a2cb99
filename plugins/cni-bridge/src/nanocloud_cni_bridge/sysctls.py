"""Kernel settings that the network needs, and their previous values for ``purge``.

The previous value is on disk before the setting changes, and never overwritten by a later start. Only settings of the
whole node are remembered; those of the bridge vanish with it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from nanocloud.errors import ProviderError

if TYPE_CHECKING:
    from nanocloud_cni_bridge.records import RecordFolder

log = logging.getLogger(__name__)

_ROOT = Path("/proc/sys/net")
_FORWARD, _FORWARD6 = "ipv4/ip_forward", "ipv6/conf/all/forwarding"


def read(name: str) -> str | None:
    """The value of ``ipv4/ip_forward`` and the like; None where the kernel does not have it."""
    try:
        return (_ROOT / name).read_text().strip()
    except FileNotFoundError:
        return None


def write(name: str, value: str) -> None:
    if read(name) == value:
        return
    try:
        (_ROOT / name).write_text(value)
    except OSError as exc:
        raise ProviderError(f"setting net.{name.replace('/', '.')} to {value} failed: {exc}") from exc


def ipv6_enabled() -> bool:
    return read("ipv6/conf/all/disable_ipv6") == "0" and read("ipv6/conf/default/disable_ipv6") == "0"


class NodeSettings:
    """The node's own settings that we change. ``NAME`` is the record that keeps what they were."""

    NAME = "sysctls"

    def __init__(self, folder: RecordFolder) -> None:
        self._folder = folder

    def apply(self, *, dual: bool) -> None:
        wanted = {_FORWARD: "1"}
        if dual and read(_FORWARD6) != "1":
            # A forwarding node ignores router advertisements unless told otherwise, and could lose its own route.
            for folder in (_ROOT / "ipv6/conf").iterdir():
                name = f"ipv6/conf/{folder.name}/accept_ra"
                if read(name) == "1":
                    wanted[name] = "2"
            wanted[_FORWARD6] = "1"
        previous = {name: before for name in wanted if (before := read(name)) is not None}
        known = self._known()
        if any(name not in known and value != wanted[name] for name, value in previous.items()):
            self._folder.write(self.NAME, previous | known)
        for name, value in wanted.items():
            write(name, value)

    def restore(self) -> None:
        """Put back what we changed, the last first. An interface may be gone by now."""
        for name, value in reversed(self._known().items()):
            if read(name) is not None:
                write(name, value)
        self._folder.remove(self.NAME)

    def _known(self) -> dict[str, str]:
        for name, record in self._folder.load():
            if name == self.NAME:
                return {str(key): str(value) for key, value in record.items()}
        return {}
