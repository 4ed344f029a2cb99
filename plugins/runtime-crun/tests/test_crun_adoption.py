"""A server that dies at any line, and the one that comes after it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from nanocloud.errors import NotFoundError
from nanocloud.providers.runtime import ContainerId, ContainerState, ExecSpec
from nanocloud_runtime_crun.processes import command_line, every_pid, send_signal, wait_gone

if TYPE_CHECKING:
    from collections.abc import Callable

    from nanocloud.providers.runtime import ContainerSpec
    from nanocloud_runtime_crun.runtime import CrunRuntime

    Build = Callable[..., ContainerSpec]
    Start = Callable[[str], subprocess.Popen[bytes]]

pytestmark = pytest.mark.root

C = ContainerId("c")
QUIET, CHATTY, BRIEF, VICTIM = (ContainerId(name) for name in ("quiet", "chatty", "brief", "victim"))
SERVER = Path(__file__).with_name("crun_server.py")


@pytest.fixture
def server(build_runtime: Callable[[], CrunRuntime], tmp_path: Path, image: Path, cgroup: str) -> Start:
    """Starts a server over the test's folders."""

    def start(action: str) -> subprocess.Popen[bytes]:
        folders = (tmp_path / "state", tmp_path / "run", cgroup, image, tmp_path / "logs")
        argv = [sys.executable, str(SERVER), *map(str, folders), action]
        return subprocess.Popen(argv, stdout=subprocess.PIPE)

    return start


def _die_ready(server: Start) -> None:
    process = server("run")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.kill()
    process.wait()
    process.stdout.close()


def _die_at(server: Start, action: str) -> None:
    process = server(action)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL


async def test_containers_outlive_their_server(
    build_runtime: Callable[[], CrunRuntime], server: Start, tmp_path: Path
) -> None:
    """Same pids, no line lost, the exit code of what ended meanwhile known, no exec session left running."""
    _die_ready(server)
    async with build_runtime() as looking:  # opened and closed: only to learn the pids
        before = {status.id: status for status in await looking.list()}
        brief = looking._host.folder("brief").read()
    assert brief is not None
    assert brief.monitor is not None
    assert brief.init is not None
    assert before[QUIET].labels == {"name": "quiet"}
    send_signal(brief.init, signal.SIGTERM)
    with trio.fail_after(30):
        await wait_gone(brief.monitor)
        async with build_runtime() as runtime:
            after = {status.id: status for status in await runtime.list()}
            assert after[QUIET] == before[QUIET]
            assert after[QUIET].state is ContainerState.RUNNING
            assert (await runtime.wait(BRIEF)).code == 9
            assert runtime._host.cgroups.members("quiet") == [after[QUIET].pid]
            async with runtime.exec(QUIET, ExecSpec(argv=("true",))) as session:
                assert await session.wait() == 0
            async with runtime.exec(CHATTY, ExecSpec(argv=("sh", "-c", "read x < /done"))) as session:
                assert await session.wait() == 0  # it has said everything
            await runtime.stop(CHATTY, grace_seconds=0)
    # A line that conmon has read in two pieces is two entries, the first marked as partial.
    entries = [line.split(" ", 3) for line in (tmp_path / "logs/chatty.log").read_text().splitlines()]
    text = "".join(words + ("\n" if tag == "F" else "") for _, _, tag, words in entries)
    assert text == "".join(f"line {number}\n" for number in range(1, 3001)) + "done\n"


CREATE_STEPS = (
    "creation.build",
    "creation._make_store",
    "creation._write_files",
    "creation.borrow",
    "creation.enter_own",
    "creation.mount_overlay",
    "creation.command",
    "creation.launch",
    "monitor.spawn",
    "runtime.let_go",
    "monitor._read_to_end",
    "monitor._parse",
)


@pytest.mark.parametrize("step", CREATE_STEPS)
async def test_half_made_container_is_gone_after_the_next_start(
    build_runtime: Callable[[], CrunRuntime], server: Start, spec: Build, tmp_path: Path, step: str
) -> None:
    _die_at(server, f"create:{step}")
    with trio.fail_after(30):
        async with build_runtime() as runtime:
            assert list(await runtime.list()) == []
            assert list((tmp_path / "run/runtime/containers").iterdir()) == []
            assert list((tmp_path / "run/runtime/crun").iterdir()) == []
            assert not (tmp_path / "state/containers/victim").exists()
            assert not [words for pid in every_pid() if str(tmp_path) in " ".join(words := command_line(pid))]
            await runtime.create(spec(id="victim"))
            await runtime.start(VICTIM)


@pytest.mark.parametrize("step", ["starting.start", "starting.release", "starting._follow", "states.status"])
async def test_half_started_container_is_started(
    build_runtime: Callable[[], CrunRuntime], server: Start, step: str
) -> None:
    _die_at(server, f"start:{step}")
    with trio.fail_after(30):
        async with build_runtime() as runtime:
            [status] = await runtime.list()
            assert status.state is ContainerState.RUNNING
            async with runtime.exec(VICTIM, ExecSpec(argv=("true",))) as session:
                assert await session.wait() == 0
            assert (await runtime.stop(VICTIM, grace_seconds=0)).code == 137


REMOVE_STEPS = ("removal.kill", "removal.wait_gone", "removal._remove_files", "removal.remove_tree")


@pytest.mark.parametrize("step", REMOVE_STEPS)
async def test_half_removed_container_is_gone_after_the_next_start(
    build_runtime: Callable[[], CrunRuntime], server: Start, tmp_path: Path, step: str
) -> None:
    _die_at(server, f"remove:{step}")
    with trio.fail_after(30):
        async with build_runtime() as runtime:
            assert list(await runtime.list()) == []
            assert list((tmp_path / "run/runtime/containers").iterdir()) == []
            assert not (tmp_path / "state/containers/victim").exists()
            with pytest.raises(NotFoundError):
                await runtime.start(VICTIM)


async def test_container_whose_monitor_was_killed_is_ended(runtime: CrunRuntime, spec: Build) -> None:
    await runtime.create(spec())
    status = await runtime.start(C)
    record = runtime._host.folder("c").read()
    assert record is not None
    assert record.monitor is not None
    with trio.fail_after(30):
        send_signal(record.monitor, signal.SIGKILL)
        assert (await runtime.wait(C)).code == 255
        [after] = await runtime.list()
        assert (after.state, after.pid) == (ContainerState.EXITED, None)
        assert runtime._host.cgroups.members("c") == []
        assert not _runs(status.pid)
        await runtime.remove(C)


def _runs(pid: int | None) -> bool:
    return pid is not None and command_line(pid) != []


async def test_restart_of_the_host_leaves_no_layer(
    build_runtime: Callable[[], CrunRuntime], spec: Build, tmp_path: Path
) -> None:
    """After a reboot the tmpfs is empty and the writable layers are still on the disk."""
    async with build_runtime() as runtime:
        await runtime.create(spec())
        await runtime.remove(C)
    left = tmp_path / "state/containers/c/upper/deep/er"
    left.mkdir(parents=True)
    (left / "file").write_text("left")
    async with build_runtime() as runtime:
        assert not (tmp_path / "state/containers/c").exists()
        await runtime.create(spec("test ! -e /deep"))
        await runtime.start(C)
        with trio.fail_after(30):
            assert (await runtime.wait(C)).code == 0


async def test_record_that_cannot_be_read_takes_its_container_with_it(
    build_runtime: Callable[[], CrunRuntime], spec: Build, tmp_path: Path
) -> None:
    async with build_runtime() as runtime:
        await runtime.create(spec())
        await runtime.start(C)
        [status] = await runtime.list()
    (tmp_path / "run/runtime/containers/c/record.json").write_text("{")
    with trio.fail_after(30):
        async with build_runtime() as runtime:
            assert list(await runtime.list()) == []
            assert not _runs(status.pid)


def test_host_with_cgroup_version_2_runs_containers(server: Start) -> None:
    process = server("version2")
    told, _ = process.communicate(timeout=60)
    assert (process.returncode, told) == (0, b"v2 3 137\n")


async def test_purge_takes_everything(build_runtime: Callable[[], CrunRuntime], spec: Build, tmp_path: Path) -> None:
    async with build_runtime() as runtime:
        for name in ("a", "b"):
            await runtime.create(spec(id=name))
        await runtime.start(ContainerId("a"))
    with trio.fail_after(30):
        await build_runtime().purge()
    assert not (tmp_path / "run/runtime").exists()
    assert not (tmp_path / "state/containers").exists()
    await build_runtime().purge()
    shutil.rmtree(tmp_path / "logs")
