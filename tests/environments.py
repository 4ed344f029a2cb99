"""Fresh environments, with the distributions of this repository as users install them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
UV = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


def installed(folder: Path, *distributions: str) -> Path:
    """The ``nanocloud`` of a fresh environment that holds just these, and what they ask for."""
    assert UV is not None
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    # The lock's versions: what an index offers today is no matter of this test.
    export = [UV, "export", "--quiet", "--frozen", "--no-emit-workspace", "--no-hashes", "--all-packages"]
    locked = subprocess.run(export, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    (folder / "constraints.txt").write_text(locked)
    pip_install(folder, *(str(ROOT / name) for name in distributions))
    return folder / "bin" / "nanocloud"


def pip_install(folder: Path, *sources: str) -> None:
    """``pip install`` into an environment."""
    assert UV is not None
    where = ["--python", str(folder / "bin" / "python"), "--constraint", str(folder / "constraints.txt")]
    subprocess.run([UV, "pip", "install", "--quiet", *where, *sources], check=True, cwd=folder)


def plugins(nanocloud: Path, folder: Path) -> dict[str, str]:
    command = [str(nanocloud), "plugin", "list", "-o", "json"]
    return {row["name"]: row["state"] for row in json.loads(run(command, folder))}


def run(command: list[str], folder: Path) -> str:
    environment = {"PATH": os.environ["PATH"], "NANOCLOUD_STATE_DIR": str(folder / "state"), "HOME": str(folder)}
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
