"""The package of "Write a runtime in 30 minutes", built from the page, installed beside core, held to its suite."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the modules beside this one

from documents import ROOT, write_files
from test_packaging import UV, installed, pip_install, plugins

PAGE = ROOT / "docs" / "write-a-runtime.md"
PROGRAMS = ("runc", "conmon", "busybox")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "my-runtime"
    write_files(PAGE, folder)
    (folder / "src" / "my_runtime" / "__init__.py").touch()  # of ``plugin new``; there is nothing to say in it
    return folder


def test_its_types_are_strict(package: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "src"]
    done = subprocess.run(command, cwd=package, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.root
@pytest.mark.skipif(UV is None, reason="needs uv")
def test_it_keeps_the_contract_once_it_is_installed(package: Path, tmp_path: Path) -> None:
    lacking = [program for program in PROGRAMS if shutil.which(program) is None]
    if lacking:
        pytest.skip(f"needs {', '.join(lacking)}")
    venv = tmp_path / "venv"
    nanocloud = installed(venv, "core")
    pip_install(venv, str(package), "pytest", "pytest-trio")
    assert plugins(nanocloud, tmp_path) == {"core": "active", "my-runtime": "active"}
    command = [
        str(venv / "bin" / "python"),
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--basetemp",
        tmp_path / "tmp",
    ]
    done = subprocess.run(command, cwd=package, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
