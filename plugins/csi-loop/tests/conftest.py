"""A folder for volumes that is clean again afterwards, whatever the test did."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nanocloud_csi_loop import LoopVolumes, mounts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


def mounts_below(root: Path) -> list[Path]:
    return sorted(path for path in mounts.table() if path.is_relative_to(root))


def images_attached_below(root: Path) -> list[str]:
    """Backing files of loop devices, as the kernel names them, whose path is below ``root``."""
    files = (file.read_text().strip() for file in Path("/sys/block").glob("loop*/loop/backing_file"))
    return sorted(file for file in files if file.startswith(f"{root}/"))


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """Fails a test that leaves a loop device behind once its mounts are gone."""
    folder = tmp_path / "volumes"
    yield folder
    if os.geteuid() != 0:
        return
    while left := mounts_below(tmp_path):
        mounts.unmount(left[-1])
    assert images_attached_below(tmp_path) == []


@pytest.fixture
def attached(root: Path) -> Callable[[], list[str]]:
    """Asks which images below the folder are behind a loop device now."""
    return lambda: images_attached_below(root)


@pytest.fixture
async def volumes(root: Path) -> AsyncIterator[LoopVolumes]:
    async with LoopVolumes(root) as opened:
        yield opened
