"""A container's root file system: the image's layers below, a writable layer of its own on top.

The options of mount(2) are limited to 4096 bytes, which full paths of forty layers exceed, and a comma or colon in a
path would end it. So every folder is given as an open descriptor, ``/proc/self/fd/<n>``.

Source: the kernel's filesystems/overlayfs.rst.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from nanocloud_runtime_runc.mounts import NODEV, NOSUID, mount


def mount_root(layers: Sequence[Path], store: Path, target: Path) -> None:
    """Mount ``layers``, lowest first, at ``target``; ``store`` takes what the container writes. Blocks.

    Raises:
        OSError: a layer is missing, or the kernel refuses.
    """
    upper, work = store / "upper", store / "work"
    store.mkdir(mode=0o700)
    for folder in (upper, work):
        folder.mkdir()
    upper.chmod(0o755)  # it is the container's "/"
    with ExitStack() as opened:

        def short(folder: Path) -> str:
            descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, descriptor)
            return f"/proc/self/fd/{descriptor}"

        lower = ":".join(short(layer) for layer in reversed(layers))
        mount("overlay", target, f"lowerdir={lower},upperdir={short(upper)},workdir={short(work)}", NOSUID | NODEV)
