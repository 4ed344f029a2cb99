"""Making and checking a file system in an image file. mke2fs needs no root for that."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import trio

from nanocloud.errors import CorruptError, ProviderError
from nanocloud_csi_loop import ext4

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1024**2


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / "volume.img"
    file.touch()
    return file


@pytest.mark.parametrize("size_mib", [16, 17, 33, 129, 1024, 100_000, 8 * 1024**2])
async def test_room_is_what_was_asked_within_half_a_percent(image: Path, size_mib: int) -> None:
    await ext4.make(image, size_mib * MIB)
    usable = ext4.read_superblock(image).usable_bytes
    assert size_mib * MIB <= usable <= size_mib * MIB * 1.005
    assert ext4.read_superblock(image).clean


async def test_estimate_that_is_too_small_is_mended(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ext4, "estimate_image_size", lambda usable_bytes: usable_bytes)
    await ext4.make(image, 64 * MIB)
    assert ext4.read_superblock(image).usable_bytes >= 64 * MIB


def test_old_content_never_shines_through(image: Path) -> None:
    image.write_bytes(b"\xff" * 32 * MIB)
    trio.run(ext4.make, image, 16 * MIB)
    assert b"\xff" * 4096 not in image.read_bytes()


async def test_environment_of_the_server_does_not_change_the_file_system(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "mke2fs.conf"
    config.write_text("[fs_types]\n ext4 = {\n  features = casefold\n }\n")
    monkeypatch.setenv("MKE2FS_CONFIG", str(config))
    await ext4.make(image, 16 * MIB)
    assert ext4.read_superblock(image).clean


async def test_damage_that_needs_a_person_says_how_to_look(image: Path) -> None:
    await ext4.make(image, 16 * MIB)
    with image.open("r+b") as file:  # the root folder's inode, in the first inode table, becomes nonsense
        file.seek(4096)
        file.write(os.urandom(512 * 1024))
        lock_fd = file.fileno()
        with pytest.raises(ProviderError, match="cannot be mended automatically") as caught:
            await ext4.check(image, lock_fd=lock_fd)
    assert f"e2fsck -f {image}" in caught.value.hint


def test_file_without_a_file_system_is_named(image: Path) -> None:
    image.write_bytes(bytes(8192))
    with pytest.raises(CorruptError, match="holds no ext4 file system"):
        ext4.read_superblock(image)
