"""``nanocloud plugin new``, as an author meets it: installed beside core, found, checked, and led by its tests."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the module beside this one

from environments import UV, installed, pip_install, plugins, run

from nanocloud.scaffold import CONTRACTS

WORKS_AT_ONCE = ("macro", "binding")
pytestmark = pytest.mark.skipif(UV is None, reason="needs uv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new plugin for each contract and one for all, installed in one environment beside core."""
    folder = tmp_path_factory.mktemp("new")
    nanocloud = str(installed(folder / "venv", "core[testkit]"))
    for contract in CONTRACTS:
        run([nanocloud, "plugin", "new", f"new-{contract}", "--provides", contract], folder)
    every = [word for contract in CONTRACTS for word in ("--provides", contract)]
    said = run([nanocloud, "plugin", "new", "every", *every], folder)
    assert said.startswith("wrote nanocloud-every to nanocloud-every\nmethods to write: storage.transact, ")
    pip_install(folder / "venv", *(str(package) for package in packages(folder)))
    return folder


def packages(folder: Path) -> list[Path]:
    return sorted(folder.glob("nanocloud-*"))


def tool(folder: Path, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A program of this repository's own environment, run in a folder."""
    command = [str(Path(sys.executable).parent / name), *words]
    return subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)


def test_every_new_plugin_is_found(folder: Path) -> None:
    names = ("core", "every", *(f"new-{contract}" for contract in CONTRACTS))
    assert plugins(folder / "venv" / "bin" / "nanocloud", folder) == dict.fromkeys(names, "active")


def test_ruff_has_nothing_to_say(folder: Path) -> None:
    for words in (["check"], ["format", "--check"]):
        done = tool(folder, "ruff", *words, "--no-cache", *map(str, packages(folder)))
        assert done.returncode == 0, done.stdout


def test_types_are_strict(folder: Path) -> None:
    python, cache = str(folder / "venv" / "bin" / "python"), str(folder / "mypy")
    for package in packages(folder):
        done = tool(package, "mypy", "--python-executable", python, "--cache-dir", cache)
        assert done.returncode == 0, f"{package.name}: {done.stdout}"


def test_async_tests_of_the_authors_own_run(folder: Path, tmp_path: Path) -> None:
    package = folder / "nanocloud-new-macro"
    own = package / "tests" / "test_own.py"
    own.write_text("import trio\n\n\nasync def test_own() -> None:\n    await trio.sleep(0)\n")
    words = ["-p", "no:cacheprovider", f"--basetemp={tmp_path / 'own'}", str(own)]
    try:
        run([str(folder / "venv" / "bin" / "python"), "-m", "pytest", *words], package)
    finally:
        own.unlink()


@pytest.mark.parametrize("contract", CONTRACTS)
def test_the_tests_pass_or_name_the_method_to_write_next(folder: Path, contract: str) -> None:
    if contract == "runtime" and shutil.which("busybox") is None:
        pytest.skip("needs busybox-static: what a container of the suite runs")
    package = folder / f"nanocloud-new-{contract}"
    # A place of its own: what other runs left in the usual one would be warned of.
    where = ["-p", "no:cacheprovider", f"--basetemp={folder / 'tests' / contract}"]
    (folder / "tests").mkdir(exist_ok=True)
    command = [str(folder / "venv" / "bin" / "python"), "-m", "pytest", "-x", *where]
    done = subprocess.run(command, cwd=package, check=False, capture_output=True, text=True)
    if contract in WORKS_AT_ONCE:
        assert re.search(r"^=+ \d+ passed in ", done.stdout, re.MULTILINE), done.stdout
        return
    assert re.search(r"^=+ 1 failed, \d+ passed in ", done.stdout, re.MULTILINE), done.stdout
    (method,) = re.findall(r"^E +NotImplementedError: (\w+) is not written yet\.", done.stdout, re.MULTILINE)
    source = (package / "src" / f"nanocloud_new_{contract}" / "provider.py").read_text()
    assert re.search(rf"^    (async )?def {method}\(", source, re.MULTILINE)
