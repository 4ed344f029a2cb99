"""Runs one volume's life in child processes and kills each after one more line of the plugin; then lets it heal.

Started by test_csi_loop_crash.py: ``crash_worker.py <root> <step>``. Prints one line a kill that did not heal, and
last ``<kills> kills``. Forking from here, where only imports have happened, makes a kill cost milliseconds.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

import nanocloud_csi_loop
from nanocloud.providers.volume import VolumeId, VolumeSpec
from nanocloud_csi_loop import LoopVolumes, mounts

if TYPE_CHECKING:
    from collections.abc import Callable

DB = VolumeId("db")
SPEC = VolumeSpec(id=DB, size_bytes=16 * 1024**2)
SOURCES = str(Path(nanocloud_csi_loop.__file__).parent)


async def life(root: Path, progress: int) -> None:
    """Make, use and delete a volume; ``progress`` is the pipe that says how far it came."""

    def reached(name: str) -> None:
        os.write(progress, f"{name}\n".encode())

    async with LoopVolumes(root) as volumes:
        await volumes.create(SPEC)
        reached("created")
        path = await volumes.publish(DB, consumer="web")
        with (path / "data").open("w") as file:
            file.write("kept")
            file.flush()
            os.fsync(file.fileno())
        reached("written")
        await volumes.publish(DB, consumer="job")
        reached("shared")
        await volumes.unpublish(DB, consumer="web")
        reached("one left")
        await volumes.unpublish(DB, consumer="job")
        reached("unmounted")
        reached("deleting")
        await volumes.delete(DB)
        reached("deleted")


async def start_again(root: Path, reached: list[str]) -> None:
    async with LoopVolumes(root) as volumes:
        listed = await volumes.list()
        assert len(listed) <= 1
        assert not [name for name in os.listdir(root) if name.startswith(".")], "leftovers"
        if "created" in reached and "deleting" not in reached:
            assert listed, "the volume is lost"
        if "deleted" in reached:
            assert not listed, "the volume is back"
        for status in listed:
            assert (status.published_path is None) == (status.consumers == ()), "mounted for nobody"
            assert set(status.consumers) <= {"web", "job"}
            if reached[-1] == "shared":
                assert "job" in status.consumers, "a consumer is lost"
        await volumes.create(SPEC)
        path = await volumes.publish(DB, consumer="again")
        if "written" in reached and listed:
            assert (path / "data").read_text() == "kept", "the data is lost"
        for status in await volumes.list():
            for consumer in status.consumers:
                await volumes.unpublish(DB, consumer=consumer)
        await volumes.delete(DB)
    await LoopVolumes(root).purge()


def assert_nothing_is_left(root: Path) -> None:
    assert not root.exists()
    assert root / DB / "mount" not in mounts.table()
    backing = [file.read_text() for file in Path("/sys/block").glob("loop*/loop/backing_file")]
    assert not [file for file in backing if file.startswith(f"{root}/")], "a loop device is left"


def heal(root: Path, reached: list[str]) -> None:
    trio.run(start_again, root, reached)
    assert_nothing_is_left(root)


def kill_at_line(number: int) -> None:
    """From here on this process, all its threads together, runs that many lines of the plugin."""
    left = number

    def count(frame: Any, event: str, _: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(SOURCES):
            return None
        if event == "line":
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return count

    threading.settrace(count)
    sys.settrace(count)


def live(root: Path, killed_at: int, progress: int) -> None:
    kill_at_line(killed_at)
    trio.run(life, root, progress)


def in_child(work: Callable[[], None]) -> int:
    """Wait status of a forked process that did the work."""
    if pid := os.fork():
        return os.waitpid(pid, 0)[1]
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
        os._exit(1)


def main(root: Path, first: int, step: int) -> None:
    line, kills = first, 0
    while True:
        reading, writing = os.pipe()

        status = in_child(partial(live, root, line, writing))
        os.close(writing)
        with os.fdopen(reading) as pipe:
            reached = ["started", *pipe.read().splitlines()]
        if in_child(partial(heal, root, reached)) != 0:
            print(f"killed at line {line}, after {reached[-1]!r}: did not heal", flush=True)
            sys.exit(1)
        if status == 0:
            break
        kills += 1
        line += step
    print(f"{kills} kills")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
