"""The five distributions as users install them: core alone, and each plugin alone on top of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLUGINS = sorted(path.name for path in (ROOT / "plugins").iterdir() if (path / "pyproject.toml").exists())
UV = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
pytestmark = pytest.mark.skipif(UV is None, reason="needs uv")


def installed(folder: Path, *distributions: str) -> Path:
    """The ``nanocloud`` of a fresh environment that holds just these, and what they ask for."""
    assert UV is not None
    python = folder / "bin" / "python"
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    # The lock's versions: what an index offers today is no matter of this test.
    export = [UV, "export", "--quiet", "--frozen", "--no-dev", "--no-emit-workspace", "--no-hashes", "--all-packages"]
    locked = subprocess.run(export, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    constraints = folder / "constraints.txt"
    constraints.write_text(locked)
    sources = [str(ROOT / name) for name in distributions]
    install = [UV, "pip", "install", "--quiet", "--python", str(python), "--constraint", str(constraints), *sources]
    subprocess.run(install, check=True, cwd=folder)
    return folder / "bin" / "nanocloud"


def plugins(nanocloud: Path, folder: Path) -> dict[str, str]:
    environment = {"PATH": os.environ["PATH"], "NANOCLOUD_STATE_DIR": str(folder / "state"), "HOME": str(folder)}
    done = subprocess.run([nanocloud, "plugin", "list", "-o", "json"], env=environment, check=True, capture_output=True)
    return {row["name"]: row["state"] for row in json.loads(done.stdout)}


def test_core_alone_is_a_working_command(tmp_path: Path) -> None:
    nanocloud = installed(tmp_path / "venv", "core")
    assert plugins(nanocloud, tmp_path) == {"core": "active"}
    said = subprocess.run([nanocloud, "--help"], check=True, capture_output=True, text=True).stdout
    assert "install" in said


@pytest.mark.parametrize("plugin", PLUGINS)
def test_each_plugin_works_on_core_without_its_siblings(plugin: str, tmp_path: Path) -> None:
    nanocloud = installed(tmp_path / "venv", "core", f"plugins/{plugin}")
    assert plugins(nanocloud, tmp_path) == {"core": "active", plugin: "active"}
