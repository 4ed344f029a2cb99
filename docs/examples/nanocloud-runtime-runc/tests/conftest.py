"""Runtimes over folders of the test's own, an image of one layer (busybox), and containers of it."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from nanocloud.providers.runtime import ContainerId, ContainerSpec, ExecSpec
from nanocloud_runtime_runc.runtime import RuncRuntime, Settings

APPLETS = frozenset(
    {"cat", "chmod", "chroot", "cut", "dd", "echo", "env", "false", "grep", "head", "id", "ls", "mkdir", "nc", "pwd"}
    | {"seq", "sh", "sleep", "stat", "stty", "true", "tty", "unshare", "wc"}
)
ID = ContainerId("web-0")
LIMIT_SECONDS = 60


@pytest.fixture
def cgroup() -> str:
    """A node may run on the machine, so the group is the test's own."""
    return f"/nanocloud-runc-test-{os.getpid()}"


@pytest.fixture
def make_runtime(tmp_path: Path, cgroup: str) -> Iterator[Callable[[], RuncRuntime]]:
    def make() -> RuncRuntime:
        return RuncRuntime(Settings(cgroup=cgroup), state_dir=tmp_path / "state", run_dir=tmp_path / "run")

    yield make
    trio.run(make().purge)


@pytest.fixture
async def runtime(make_runtime: Callable[[], RuncRuntime]) -> AsyncIterator[RuncRuntime]:
    async with make_runtime() as opened:
        yield opened


@pytest.fixture(autouse=True)
def no_hanging() -> Iterator[None]:
    """A runtime that hangs fails instead of hanging the run."""
    before = signal.signal(signal.SIGALRM, _hangs)
    signal.alarm(LIMIT_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _hangs(*_: object) -> None:
    raise TimeoutError(f"not done within {LIMIT_SECONDS} s")


@pytest.fixture
def busybox(tmp_path: Path) -> tuple[Path, ...]:
    program, layer = shutil.which("busybox"), tmp_path / "layer"
    if program is None or shutil.which("runc") is None or shutil.which("conmon") is None:
        pytest.skip("needs runc, conmon and busybox: apt-get install runc conmon busybox-static")
    for name in ("", "bin", "etc", "tmp"):
        (layer / name).mkdir(mode=0o755)
        (layer / name).chmod(0o755)
    shutil.copy(program, layer / "bin" / "busybox")
    for applet in APPLETS:
        (layer / "bin" / applet).symlink_to("busybox")
    return (layer,)


@pytest.fixture
def spec(busybox: tuple[Path, ...], tmp_path: Path) -> Callable[..., ContainerSpec]:
    """Builds the spec of a container that runs a line of shell; the rest as ContainerSpec has it."""

    def build(script: str = "sleep 1000000", **fields: Any) -> ContainerSpec:
        given: dict[str, Any] = {"id": ID, "layers": busybox, "log_path": tmp_path / "logs" / "0.log"}
        return ContainerSpec(**(given | {"argv": ("sh", "-c", script)} | fields))

    return build


@pytest.fixture
def output(runtime: RuncRuntime) -> Callable[[ContainerSpec], Awaitable[list[str]]]:
    """Runs a container to its end and gives the lines that it has printed."""

    async def run(spec: ContainerSpec) -> list[str]:
        await runtime.create(spec)
        await runtime.start(spec.id)
        await runtime.wait(spec.id)
        return [line.split(" ", 3)[3] for line in spec.log_path.read_text().splitlines()]

    return run


async def executed(runtime: RuncRuntime, script: str, **fields: Any) -> tuple[int, str]:
    """Exit code and output of a line of shell in the container."""
    async with runtime.exec(ID, ExecSpec(argv=("sh", "-c", script), **fields)) as session:
        read = b"".join([bytes(piece) async for piece in session.stdout])
        return await session.wait(), read.decode()
