"""PluginSite: a site-packages folder of a test's own, with plugins as they are when installed."""

from __future__ import annotations

import sys
from importlib.metadata import distributions
from itertools import count
from typing import TYPE_CHECKING, Any

import attrs

from nanocloud.plugins import PluginHost

if TYPE_CHECKING:
    from pathlib import Path

_numbers = count()


@attrs.define
class PluginSite:
    """Distributions in ``folder``; put it on the path first, and call ``forget`` in the end."""

    folder: Path
    modules: list[str] = attrs.field(factory=list)

    def install(self, distribution: str, entry: str, source: str, *, version: str = "1.2.3", metadata: str = "") -> str:
        """Add a distribution with one entry point ``entry``; returns the name of its module.

        ``metadata`` is more lines of the distribution's METADATA, such as ``Summary: Fast containers``.
        """
        module = f"plugin_of_the_test_{next(_numbers)}"
        self.modules.append(module)
        (self.folder / f"{module}.py").write_text(source)
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {distribution}", f"Version: {version}", *metadata.splitlines()]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        (info / "entry_points.txt").write_text(f"[nanocloud]\n{entry} = {module}\n")
        return module

    def host(self, **options: Any) -> PluginHost:
        """The plugins of this folder only; ``options`` are those of PluginHost."""
        installed = [
            entry
            for distribution in distributions(path=[str(self.folder)])
            for entry in distribution.entry_points.select(group="nanocloud")
        ]
        return PluginHost(installed=installed, **options)

    def forget(self) -> None:
        """Take the modules out of this process again."""
        for module in self.modules:
            sys.modules.pop(module, None)
