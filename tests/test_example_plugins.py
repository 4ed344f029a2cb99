"""The plugins of docs/examples as their users have them: installed beside core and ours, typed, and tested."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the module beside this one

from environments import ROOT, UV, installed, plugins

OURS = ("runtime-crun", "cni-bridge", "csi-loop", "dockyard")
PACKAGES = ("nanocloud-storage-lmdb", "nanocloud-macro-passphrase")
pytestmark = pytest.mark.skipif(UV is None, reason="needs uv")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples") / "venv"
    ours = [f"plugins/{name}" for name in OURS]
    installed(folder, "core[testkit]", *ours, *(f"docs/examples/{package}" for package in PACKAGES))
    return folder


def test_they_are_found_beside_ours(environment: Path, tmp_path: Path) -> None:
    names = ("core", *OURS, *(package.removeprefix("nanocloud-") for package in PACKAGES))
    assert plugins(environment / "bin" / "nanocloud", tmp_path) == dict.fromkeys(names, "active")


@pytest.mark.parametrize("package", PACKAGES)
def test_types_are_strict(environment: Path, package: str, tmp_path: Path) -> None:
    words = ["--python-executable", str(environment / "bin" / "python"), "--cache-dir", str(tmp_path)]
    done = run([str(Path(sys.executable).with_name("mypy")), *words], package)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("package", PACKAGES)
def test_ruff_has_nothing_to_say_by_their_own_rules(package: str) -> None:
    ruff = str(Path(sys.executable).with_name("ruff"))
    for words in (["check"], ["format", "--check"]):
        done = run([ruff, *words, "--no-cache"], package)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("package", PACKAGES)
def test_their_own_tests_pass(environment: Path, package: str, tmp_path: Path) -> None:
    # Nothing is left in the source tree, and what other runs left in the usual places is none of theirs.
    words = ["-q", "-x", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'tests'}"]
    done = run([str(environment / "bin" / "python"), "-B", "-m", "pytest", *words], package)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^\d+ passed", done.stdout, re.MULTILINE), done.stdout


def run(command: list[str], package: str) -> subprocess.CompletedProcess[str]:
    folder = ROOT / "docs" / "examples" / package
    return subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
