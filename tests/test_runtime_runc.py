"""The example of a runtime as a package of somebody else's: installed beside ours, type-checked, held to its tests."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the modules beside this one

from environments import ROOT, UV, installed, pip_install, plugins, run
from runtime_runc import NODE, PACKAGE, lacking_programs


@pytest.mark.root
@pytest.mark.skipif(UV is None, reason="needs uv")
@pytest.mark.skipif(bool(lacking_programs()), reason=f"needs {', '.join(lacking_programs())}")
def test_it_is_typed_strictly_and_keeps_the_contract_where_it_is_installed(tmp_path: Path) -> None:
    nanocloud = installed(tmp_path / "venv", *NODE)
    pip_install(tmp_path / "venv", "pytest", "pytest-trio", "mypy")
    states = plugins(nanocloud, tmp_path)
    assert (states["runtime-runc"], states["runtime-crun"]) == ("active", "active")

    python, package = str(tmp_path / "venv" / "bin" / "python"), tmp_path / "package"
    shutil.copytree(ROOT / PACKAGE, package)
    shutil.rmtree(package / "src")  # what is installed is what is tested
    shown = run([python, "-m", "mypy", "-p", "nanocloud_runtime_runc", "--strict", "--cache-dir", "types"], tmp_path)
    assert "no issues found" in shown
    shown = run([python, "-m", "mypy", "package/tests", "--strict", "--cache-dir", "types"], tmp_path)
    assert "no issues found" in shown
    shown = run([python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", "temp", "package"], tmp_path)
    assert " passed" in shown
    assert "skipped" not in shown
