"""The pages of the site from the Markdown of the repository, which stays readable where it is.

What changes on the way: a link to a file leads to the page made of it (a contract's module to its reference), the
title of a code block becomes its caption, and the list of links below a heading of a ``README.md`` becomes a part of
the navigation. A link to what is no page (a licence, a folder) leaves its text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path, PurePosixPath

import reference

_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")
_BLOCK = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_TITLED = re.compile(r'^```(\w+) title="([^"]+)"$', re.MULTILINE)


def site_name(file: str) -> str | None:
    """The name of the page that ``file``, a path in the repository, becomes; None for what is no page.

    >>> site_name("docs/catalogue/README.md"), site_name("plugins/dockyard/README.md"), site_name("LICENSE")
    ('catalogue/index', 'plugins/dockyard', None)
    """
    path = PurePosixPath(file)
    if path.suffix == ".py":
        return reference.page_of(path)
    if path.suffix != ".md":
        return None
    match path.parts:
        case ("README.md",):
            return "overview"
        case ("changes", _):
            return "changes"
        case ("docs", *rest, "README.md"):
            return "/".join([*rest, "index"])
        case ("docs", *rest, name):
            return "/".join([*rest, name.removesuffix(".md")])
        case ("plugins", name, "README.md"):
            return f"plugins/{name}"
        case (name, "README.md"):
            return name
    return None


def collect(root: Path) -> dict[str, str]:
    """Every page, by its name with its suffix: those of the repository, and the generated reference."""
    files = [root / "README.md", root / "core" / "README.md", root / "bench" / "README.md"]
    files += [file for file in sorted((root / "docs").rglob("*.md")) if "/." not in file.relative_to(root).as_posix()]
    files += sorted((root / "plugins").glob("*/README.md"))
    found = {}
    for file in files:
        name = file.relative_to(root).as_posix()
        found[f"{site_name(name)}.md"] = converted(file.read_text(), name)
    found["changes.md"] = changes(root)
    return found | reference.pages(root)


def changes(root: Path) -> str:
    """The fragments as one page, the newest first; each heading one level down."""
    fragments = sorted((file for file in (root / "changes").glob("[0-9]*.md")), reverse=True)
    texts = [re.sub(r"^#", "##", converted(file.read_text(), f"changes/{file.name}")) for file in fragments]
    return "\n".join(["# Changes\n\nWhat users can do now, or do differently; the newest first.\n", *texts])


def converted(text: str, file: str) -> str:
    """The source of a page for the generator."""
    page = site_name(file) or ""
    pieces = []
    for number, piece in enumerate(_BLOCK.split(text)):
        is_code = number % 2
        pieces.append(_captioned(piece) if is_code else _LINK.sub(lambda found: _link(found, file, page), piece))
    if PurePosixPath(file).name == "README.md":
        pieces.append(_navigation(text, file))
    return "".join(pieces)


def _captioned(block: str) -> str:
    return _TITLED.sub(r"```{code-block} \1\n:caption: \2", block)


def _link(found: re.Match[str], file: str, page: str) -> str:
    text, target = found.groups()
    if target.startswith(("https://", "http://", "#")):
        return found[0]
    path, _, anchor = target.partition("#")
    name = site_name(_in_repository(path, file))
    if name is None:
        return text
    suffix = ".md" if not name.startswith("reference/") else ".rst"
    there = posixpath.relpath(f"{name}{suffix}", posixpath.dirname(page) or ".")
    return f"[{text}]({there}{'#' + anchor if anchor else ''})"


def _in_repository(path: str, file: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(file), path))


def _navigation(text: str, file: str) -> str:
    """A hidden table of contents for each heading with links in a list or a table below it, in their order."""
    lines: list[str] = []
    here = posixpath.dirname(site_name(file) or "")
    for section in re.split(r"^## ", text, flags=re.MULTILINE):
        heading = section.partition("\n")[0].lstrip("# ")
        links = re.findall(r"^(?:-|\|) ?\[[^\]]*\]\(([^)#\s]+)\)", section, re.MULTILINE)
        names = [site_name(_in_repository(link, file)) for link in links if not link.startswith("https://")]
        entries = [posixpath.relpath(name, here or ".") for name in names if name]
        if entries:
            lines += ["", "```{toctree}", ":hidden:", f":caption: {heading}", "", *entries, "```"]
    return "\n".join([*lines, ""])
