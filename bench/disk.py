"""The disk that all contenders of a measure share: a fresh ext4 on a loop device.

``BENCH_DISK=plain`` takes a folder of the disk of ``.cache`` instead.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE = Path(__file__).parents[1] / ".cache" / "bench"


@contextmanager
def fresh_disk(*, gigabytes: int = 4) -> Iterator[Path]:
    """An empty folder on a file system of its own; it is gone afterwards. Its path is short, as sockets need it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    if os.environ.get("BENCH_DISK") == "plain":
        folder = CACHE / "disk"
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder)
        return
    folder = Path(tempfile.mkdtemp(prefix="ncb-", dir="/tmp"))  # made here, and nobody else's
    file = CACHE / f"{folder.name}.img"
    with file.open("wb") as made:
        made.truncate(gigabytes << 30)
    options = "lazy_itable_init=0,lazy_journal_init=0"  # nothing is left to be done in the background
    subprocess.run(["mkfs.ext4", "-q", "-E", options, str(file)], check=True)
    subprocess.run(["mount", "-o", "loop", str(file), str(folder)], check=True)
    file.unlink()  # the mount keeps it
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def remove(folder: Path) -> None:
    """Outside the time that is taken; what is left to write must not fall on the next one."""
    shutil.rmtree(folder)
    os.sync()
