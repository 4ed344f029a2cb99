"""Runtimes over folders of the test's own, and an image of one layer: busybox."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nanocloud_runtime_runc.runtime import RuncRuntime, Settings

APPLETS = (
    "cat",
    "echo",
    "env",
    "id",
    "kill",
    "ls",
    "mkdir",
    "mount",
    "nc",
    "sh",
    "sleep",
    "stat",
    "stty",
    "tty",
    "ulimit",
)


@pytest.fixture
def cgroup() -> str:
    """A node may run on the machine, so the group is the test's own."""
    return f"/nanocloud-runc-test-{os.getpid()}"


@pytest.fixture
def make_runtime(tmp_path: Path, cgroup: str) -> Callable[[], RuncRuntime]:
    return lambda: RuncRuntime(Settings(cgroup=cgroup), state_dir=tmp_path / "state", run_dir=tmp_path / "run")


@pytest.fixture
def busybox(tmp_path: Path) -> tuple[Path, ...]:
    program, layer = shutil.which("busybox"), tmp_path / "layer"
    if program is None or shutil.which("runc") is None or shutil.which("conmon") is None:
        pytest.skip("needs runc, conmon and busybox: apt-get install runc conmon busybox-static")
    for name in ("bin", "etc", "tmp"):
        (layer / name).mkdir(parents=True)
    shutil.copy(program, layer / "bin" / "busybox")
    for applet in APPLETS:
        (layer / "bin" / applet).symlink_to("busybox")
    return (layer,)
