"""The reference pages: one for the hooks, one a contract, and what else plugins import; all from docstrings.

Nothing is listed by hand but the order of the modules that are not contracts: a new contract, or a new module of the
testkit, has its place by being there.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

PACKAGE = PurePosixPath("core/src/nanocloud")

# Page, title, modules of it: what is not found by looking.
_FIXED = {
    "hooks": ("Hooks", ["nanocloud.hookspecs", "nanocloud.extension", "nanocloud.context"]),
    "errors": ("Errors", ["nanocloud.errors"]),
    "config": ("Configuration of the node", ["nanocloud.config"]),
}
_TITLES = {"base": "All contracts", "testkit": "The testkit"}


def page_of(path: PurePosixPath) -> str | None:
    """The reference page that documents a module; None for modules that are not for plugins."""
    if not path.is_relative_to(PACKAGE):
        return None
    inner = path.relative_to(PACKAGE)
    if inner.parts[0] == "testkit":
        return "reference/testkit"
    if inner.parts[0] == "providers":
        return f"reference/{'base' if inner.stem == '__init__' else inner.stem}"
    module = "nanocloud." + inner.stem
    return next((f"reference/{page}" for page, (_, modules) in _FIXED.items() if module in modules), None)


def pages(root: Path) -> dict[str, str]:
    """Every reference page as reStructuredText, by its name with its suffix."""
    package = root / PACKAGE
    found = dict(_FIXED)
    for file in sorted((package / "providers").glob("[a-z]*.py")):
        title = _TITLES.get(file.stem, f"The {file.stem} contract")
        found[file.stem] = (title, [f"nanocloud.providers.{file.stem}"])
    found["base"] = (_TITLES["base"], ["nanocloud.providers", "nanocloud.providers.base"])
    found["testkit"] = (_TITLES["testkit"], _testkit(package / "testkit"))
    return {f"reference/{name}.rst": _page(title, modules) for name, (title, modules) in found.items()}


def _testkit(folder: Path) -> list[str]:
    files = [file for file in sorted(folder.rglob("*.py")) if not file.name.startswith("_")]
    return [".".join(["nanocloud", *file.relative_to(folder.parent).with_suffix("").parts]) for file in files]


def _page(title: str, modules: list[str]) -> str:
    lines = [title, "=" * len(title), ""]
    for module in modules:
        if len(modules) > 1:
            lines += [module, "-" * len(module), ""]
        lines += [f".. automodule:: {module}", ""]
    return "\n".join(lines)
