"""The package of "Write a runtime in 30 minutes": made by ``plugin new``, written from the page, held to its suite."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the modules beside this one

from documents import ROOT, write_files
from environments import UV, installed, pip_install, plugins, run

PAGE = ROOT / "docs" / "write-a-runtime.md"
PROGRAMS = ("runc", "conmon", "busybox")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """What the reader has in the end."""
    nanocloud = str(Path(sys.executable).with_name("nanocloud"))
    run([nanocloud, "plugin", "new", "my-runtime", "--provides", "runtime"], tmp_path)
    folder = tmp_path / "nanocloud-my-runtime"
    there = {path.relative_to(folder) for path in folder.rglob("*.py")}
    write_files(PAGE, folder)
    assert {Path("src/nanocloud_my_runtime") / name for name in ("plugin.py", "provider.py")} <= there
    return folder


def test_its_types_are_strict(package: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(ROOT / ".cache" / "mypy-docs")]
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
    options = ["-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'tmp'}"]
    command = [str(venv / "bin" / "python"), "-m", "pytest", *options]
    done = subprocess.run(command, cwd=package, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
