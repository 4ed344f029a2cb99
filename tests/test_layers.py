"""What the design promises about imports: down only, plugins apart, small modules, light commands."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "core" / "src" / "nanocloud"
PLUGINS = {path.name.replace("-", "_"): path for path in (ROOT / "plugins").iterdir() if (path / "src").is_dir()}

# From the bottom to the top. A part imports parts of lower rows only; a new part takes its place here.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("ambient", "errors"),
    ("concurrency", "files", "output", "terminals"),
    ("models",),
    ("config", "providers"),
    ("storage", "secrets", "images", "bindings", "extension", "client"),
    ("keyspace",),
    ("identity", "observability"),
    ("objects", "workqueue", "workers"),
    ("context",),
    ("contracts", "hookspecs"),
    ("plugins",),
    ("planning",),
    ("macros",),
    ("kubelet",),
    ("controllers",),
    ("apiserver",),
    ("builtin", "testkit", "scaffold"),
    ("node",),
    ("setup",),
    ("cli",),
)
RANK = {part: rank for rank, row in enumerate(LAYERS) for part in row}
MOST_LINES = 600

# What plugins build on: everything up to the plugin host, the pure planning, and the fakes.
OPEN_PARTS = {part for row in LAYERS for part in row if RANK[part] <= RANK["planning"]} | {"testkit"}


@cache
def imports(file: Path) -> frozenset[tuple[str, str]]:
    """Every (module, name) that a file imports, at its top, in a function or for types; a bare import has no name."""
    found: set[tuple[str, str]] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            found |= {(node.module or "", alias.name) for alias in node.names}
    return frozenset(found)


def part(module: str, name: str) -> str | None:
    """The part of core that an import leads to; None outside core, and for the names of the package itself."""
    words = module.split(".")
    if words[0] != "nanocloud":
        return None
    if len(words) > 1:
        return words[1]
    return name if (CORE / name).is_dir() or (CORE / f"{name}.py").exists() else None


def modules(*folders: Path) -> list[Path]:
    return sorted(file for folder in folders for file in folder.rglob("*.py"))


def shown(file: Path) -> str:
    return str(file.relative_to(ROOT))


def test_every_part_of_core_has_its_layer() -> None:
    parts = {file.relative_to(CORE).parts[0].removesuffix(".py") for file in modules(CORE)} - {"__init__"}
    assert parts - RANK.keys() == set()


@pytest.mark.parametrize("file", modules(CORE), ids=shown)
def test_imports_go_down_only(file: Path) -> None:
    own = file.relative_to(CORE).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    wrong = {
        f"{own} -> {module}"
        for module, name in imports(file)
        if (other := part(module, name)) not in (None, own) and RANK[other or ""] >= RANK[own]
    }
    assert wrong == set()


@pytest.mark.parametrize("file", modules(*(path / "src" for path in PLUGINS.values())), ids=shown)
def test_plugins_import_public_modules_of_core_and_no_sibling(file: Path) -> None:
    (own,) = [name for name, path in PLUGINS.items() if file.is_relative_to(path)]
    for module, name in imports(file):
        package = module.partition(".")[0]
        assert package not in {f"nanocloud_{plugin}" for plugin in PLUGINS} - {f"nanocloud_{own}"}, module
        if package == "nanocloud":
            public = not any(word.startswith("_") for word in [*module.split("."), name] if word != "__version__")
            assert public, f"{module}.{name} is private"
            assert part(module, name) in {None, *OPEN_PARTS}, f"{module} is not for plugins"


@pytest.mark.parametrize("file", modules(*(path / "tests" for path in PLUGINS.values())), ids=shown)
def test_tests_of_plugins_need_no_sibling(file: Path) -> None:
    (own,) = [name for name, path in PLUGINS.items() if file.is_relative_to(path)]
    packages = {module.partition(".")[0] for module, _ in imports(file)}
    assert packages & ({f"nanocloud_{plugin}" for plugin in PLUGINS} - {f"nanocloud_{own}"}) == set()


def test_no_module_grows_too_long() -> None:
    files = modules(CORE, *(path / "src" for path in PLUGINS.values()))
    assert [shown(file) for file in files if len(file.read_text().splitlines()) > MOST_LINES] == []


# ---- what a command costs before it does anything --------------------------------------------------------------------

HEAVY = frozenset(
    {
        "attrs",
        "cattrs",
        "cryptography",
        "httptools",
        "httpx2",
        "hypercorn",
        "importlib.metadata",
        "jwt",
        "pluggy",
        "prometheus_client",
        "pydantic",
        "rich",
        "starlette",
        "structlog",
        "trio",
        "yaml",
    }
)


def loaded_by(code: str) -> set[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("COV", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code", ["import nanocloud.cli.main", "import nanocloud.cli.app", "import nanocloud.cli.status"]
)
def test_the_command_line_imports_nothing_heavy(code: str) -> None:
    assert loaded_by(code) & HEAVY == set()


@pytest.mark.parametrize(
    "words", [["status", "--curl"], ["logs", "x", "--curl"], ["install", "x", "--curl"], ["version"]]
)
def test_a_command_imports_nothing_heavy_until_it_runs(words: list[str], tmp_path: Path) -> None:
    # The version stands in the metadata.
    allowed = {"importlib.metadata"} if words == ["version"] else frozenset()
    assert loaded_by(main(words, tmp_path)) & (HEAVY - allowed) == set()


@pytest.mark.parametrize("words", [["status", "--curl"], ["status", "x", "-n", "y", "--curl"]])
def test_a_quick_command_needs_little_of_the_standard_library_and_nothing_else(
    words: list[str], tmp_path: Path
) -> None:
    assert outside_of_the_standard_library(main(words, tmp_path)) == {"nanocloud"}
    slow = {"argparse", "asyncio", "email", "http.client", "inspect", "logging", "subprocess", "tomllib"}
    assert loaded_by(main(words, tmp_path)) & slow == set()


def test_a_server_does_not_carry_the_command_line(tmp_path: Path) -> None:
    code = "from nanocloud.cli.words import quick_call\nassert quick_call(['server', '--log-format', 'json'])"
    assert outside_of_the_standard_library(code) & {"typer", "shellingham", "rich"} == {"rich"}, "structlog brings rich"


def test_a_server_does_without_websockets_until_one_is_asked_for() -> None:
    assert loaded_by("import nanocloud.apiserver.server, nanocloud.node") & {"hypercorn", "wsproto", "h2"} == set()


def test_help_needs_nothing_but_the_standard_library_and_asks_plugins_only_once(tmp_path: Path) -> None:
    first, again = (outside_of_the_standard_library(main(["--help"], tmp_path)) for _ in range(2))
    assert "pluggy" in first
    assert again == {"nanocloud"}


def test_no_third_package_is_in_the_way_of_a_command() -> None:
    """One line a package, so that a new one is noticed."""
    of_typer = {"typer", "annotated_doc", "shellingham"}
    assert outside_of_the_standard_library("import nanocloud.cli.status") == {"nanocloud", *of_typer}


def main(words: list[str], home: Path) -> str:
    """Code that runs a command line for a user with an empty home, on a machine that is no node."""
    return (
        f"import os; os.environ.update(KUBECONFIG='', NANOCLOUD_STATE_DIR={str(home)!r}, HOME={str(home)!r})\n"
        f"os.environ.pop('XDG_CACHE_HOME', None)\nfrom nanocloud.cli.main import main\nmain({words!r})"
    )


def outside_of_the_standard_library(code: str) -> set[str]:
    before = {module.partition(".")[0] for module in loaded_by("")}
    after = {module.partition(".")[0] for module in loaded_by(code)}
    return after - before - set(sys.stdlib_module_names)
