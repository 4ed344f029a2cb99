"""Examples of the documentation as files."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "plugins.md"
FILES = ("pyproject.toml", "nanocloud_url_macro.py", "test_url_macro.py")


def example_package(folder: Path) -> Path:
    """The plugin of the guide for plugin authors, written to a folder."""
    page = dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```', PAGE.read_text(), re.MULTILINE | re.DOTALL))
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text(page[name])
    return folder
