"""Examples of the documentation as packages."""

from __future__ import annotations

from pathlib import Path

from documents import ROOT, write_files


def example_package(folder: Path) -> Path:
    """The plugin of the guide for plugin authors, written to a folder."""
    folder.mkdir()
    write_files(ROOT / "docs" / "plugins.md", folder)
    return folder
