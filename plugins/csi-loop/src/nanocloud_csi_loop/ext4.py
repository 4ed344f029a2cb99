"""The ext4 file system inside an image: how big the image must be, making the file system, and checking it.

*Of the asked size* means: an empty volume has room for at least that many bytes of data, and its limit is at most
a few per cent above. The image is larger than that by what ext4 keeps for itself: the inode tables (one 256-byte
inode for 16 KiB), the journal, and the blocks that the kernel holds back for its own bookkeeping.

Source: kernel documentation, ``filesystems/ext4/super.rst``; mke2fs(8), e2fsck(8).
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import attrs

from nanocloud.errors import CommandError, CorruptError, ProviderError
from nanocloud_csi_loop.commands import run
from nanocloud_csi_loop.sizes import KIB, MIB

if TYPE_CHECKING:
    from pathlib import Path

_BLOCK = 4096
_BYTES_PER_INODE, _INODE_SIZE = 16384, 256
_HELD_BACK_SHARE, _HELD_BACK_MOST = 1 / 50, 4096 * _BLOCK
_GRAIN = 64 * KIB  # images are multiples of it
# Named one by one, so that a volume does not depend on the host's mke2fs.conf. No resize_inode: it reserves room
# for growth that the kernel can do without; no orphan_file: kernels before 5.15 refuse it.
_FEATURES = (
    "none,has_journal,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,"
    "extra_isize,metadata_csum"
)
# A fresh sparse file reads as zeros, so neither mke2fs nor, after the first mount, the kernel need write them.
_EXTENDED = "nodiscard,assume_storage_prezeroed=1,lazy_itable_init=0"

_SUPERBLOCK_AT, _SUPERBLOCK_SIZE, _MAGIC = 1024, 1024, 0xEF53
_CLEAN = 1  # s_state: unmounted cleanly, no errors seen
_INCOMPAT_RECOVER = 0x4  # the journal holds something to replay
_MAKE_ATTEMPTS = 4


@attrs.frozen(kw_only=True)
class Superblock:
    """What an image's superblock says while nobody has it mounted."""

    blocks: int
    free_blocks: int
    clean: bool

    @property
    def usable_bytes(self) -> int:
        return self.free_blocks * _BLOCK - _held_back(self.blocks * _BLOCK)


def estimate_image_size(usable_bytes: int) -> int:
    """Bytes of the image that has ``usable_bytes`` of room; ``make`` checks it and mends what is missing."""
    inner = usable_bytes + _journal_mib(usable_bytes) * MIB + _GRAIN
    # Of the image, inode tables are 1/64, and bitmaps and group descriptors less than 1/8192.
    share = 1 - _INODE_SIZE / _BYTES_PER_INODE - 1 / 8192
    small = inner / (share - _HELD_BACK_SHARE)
    return _round_up(int(min(small, (inner + _HELD_BACK_MOST) / share)), _GRAIN)


async def make(image: Path, usable_bytes: int) -> None:
    """Put an empty file system with room for ``usable_bytes`` on ``image``, which keeps nothing of what it held.

    Raises:
        CommandError: mke2fs failed, for instance because the host's disk is full.
    """
    size = estimate_image_size(usable_bytes)
    for _ in range(_MAKE_ATTEMPTS):
        _clear(image, size)
        await _mke2fs(image, usable_bytes)
        missing = usable_bytes - read_superblock(image).usable_bytes
        if missing <= 0:
            return
        size += _round_up(missing + missing // 16, _GRAIN)
    raise ProviderError(f"mke2fs leaves {missing} bytes less than asked on an image of {size} bytes")


def read_superblock(image: Path) -> Superblock:
    """Raises CorruptError where there is no ext4 superblock."""
    with image.open("rb") as file:
        file.seek(_SUPERBLOCK_AT)
        raw = file.read(_SUPERBLOCK_SIZE)
    if len(raw) < _SUPERBLOCK_SIZE or _u16(raw, 0x38) != _MAGIC:
        raise CorruptError(f"{image} holds no ext4 file system", hint="restore the volume from a backup")
    return Superblock(
        blocks=_u32(raw, 0x4) | _u32(raw, 0x150) << 32,
        free_blocks=_u32(raw, 0xC) | _u32(raw, 0x158) << 32,
        clean=_u16(raw, 0x3A) == _CLEAN and not _u32(raw, 0x60) & _INCOMPAT_RECOVER,
    )


async def check(image: Path, *, lock_fd: int) -> None:
    """Replay the journal and mend what can be mended safely; the image must not be in use.

    The program keeps ``lock_fd`` open: if the server dies meanwhile, the lock lives as long as the check does.

    Raises:
        ProviderError: damage that a person must look at; the data is as it was.
    """
    argv = ["e2fsck", "-p", str(image)]
    done = await run(argv, pass_fds=(lock_fd,))
    # e2fsck(8): 1 and 2 mean mended, 4 damage is left, 8 and above the program itself failed.
    if done.returncode < 0 or done.returncode & ~0x3:
        said = (done.stderr + done.stdout).decode(errors="replace")
        raise ProviderError(
            f"{image} has damage that cannot be mended automatically",
            hint=f"look with: e2fsck -fn {image}; mend with: e2fsck -f {image}",
        ) from CommandError(argv, done.returncode, said)


async def _mke2fs(image: Path, usable_bytes: int) -> None:
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", str(_BLOCK), "-I", str(_INODE_SIZE), "-i", str(_BYTES_PER_INODE)]
    # -m 0: no blocks set aside for root. -e: after an error stop writing rather than write on what is wrong.
    argv += ["-m", "0", "-e", "remount-ro", "-O", _FEATURES, "-E", _EXTENDED]
    argv += ["-J", f"size={_journal_mib(usable_bytes)}", str(image)]
    done = await run(argv)
    if done.returncode != 0:
        raise CommandError(argv, done.returncode, done.stderr.decode(errors="replace"))


def _journal_mib(usable_bytes: int) -> int:
    return max(4, min(64, usable_bytes // MIB // 32))


def _held_back(image_bytes: int) -> int:
    """What the kernel keeps of the free blocks (ext4_calculate_resv_clusters)."""
    return min(int(image_bytes * _HELD_BACK_SHARE), _HELD_BACK_MOST)


def _clear(image: Path, size: int) -> None:
    with image.open("wb") as file:  # cut to nothing first: the storage must read as zeros
        os.truncate(file.fileno(), size)


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _u16(raw: bytes, at: int) -> int:
    return int(struct.unpack_from("<H", raw, at)[0])


def _u32(raw: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", raw, at)[0])
