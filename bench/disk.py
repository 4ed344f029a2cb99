"""The disk that all contenders of a measure share: a fresh ext4 on a loop device.

``BENCH_DISK=plain`` takes a folder of the disk of ``.cache`` instead.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE = Path(__file__).parents[1] / ".cache" / "bench"


@contextmanager
def fresh_disk(name: str = "disk", *, gigabytes: int = 4) -> Iterator[Path]:
    """An empty folder on a file system of its own; it is gone afterwards."""
    folder = CACHE / name
    folder.mkdir(parents=True, exist_ok=True)
    if os.environ.get("BENCH_DISK") == "plain":
        try:
            yield folder
        finally:
            shutil.rmtree(folder)
        return
    file = CACHE / f"{name}.img"
    file.unlink(missing_ok=True)
    with file.open("wb") as made:
        made.truncate(gigabytes << 30)
    options = "lazy_itable_init=0,lazy_journal_init=0"  # nothing is left to be done in the background
    subprocess.run(["mkfs.ext4", "-q", "-E", options, str(file)], check=True)
    subprocess.run(["mount", "-o", "loop", str(file), str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        file.unlink()
        folder.rmdir()


def remove(folder: Path) -> None:
    """Outside the time that is taken; what is left to write must not fall on the next one."""
    shutil.rmtree(folder)
    os.sync()
