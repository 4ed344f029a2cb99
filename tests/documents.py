"""The code blocks of the documentation, as data and as files."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import attrs

ROOT = Path(__file__).parents[1]


def pages_below(folder: str) -> list[Path]:
    """Without what tools leave in hidden folders, of which some have a README."""
    below = ROOT / folder
    return sorted(page for page in below.rglob("*.md") if not re.search(r"(^|/)\.", str(page.relative_to(below))))


DOCS = [ROOT / "README.md", *pages_below("docs"), *pages_below("changes")]
READMES = [ROOT / "core" / "README.md", *sorted((ROOT / "plugins").glob("*/README.md"))]
PAGES = [*DOCS, *READMES]
_FENCE = re.compile(r'^```(\S*)(?: title="([^"]+)")?[^\n]*\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@attrs.frozen
class Block:
    page: str
    """Path in the repository."""
    line: int
    language: str
    title: str
    text: str = attrs.field(repr=False)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_file(self) -> bool:
        """Whether the title is a path below the reader's folder."""
        path = PurePosixPath(self.title)
        return bool(re.fullmatch(r"[\w./-]+", self.title)) and not path.is_absolute() and ".." not in path.parts


def blocks_of(page: Path) -> list[Block]:
    """Every fenced block of a page, in order."""
    text, name = page.read_text(), str(page.relative_to(ROOT))
    return [
        Block(name, text.count("\n", 0, found.start()) + 1, found[1], found[2] or "", found[3])
        for found in _FENCE.finditer(text)
    ]


def write_files(page: Path, folder: Path) -> None:
    """The blocks of a page that are files, as its reader makes them."""
    for block in blocks_of(page):
        if block.is_file:
            path = folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
