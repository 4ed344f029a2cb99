"""A runtime over folders of the test's own, an image made of busybox, and a host that is clean again afterwards."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from nanocloud.providers.runtime import ContainerSpec, Mount
from nanocloud.testkit.specs import container_spec
from nanocloud_runtime_crun.processes import command_line, every_pid
from nanocloud_runtime_crun.runtime import CrunConfig, CrunRuntime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

LIMIT_SECONDS = 30
APPLETS = "cat chmod cut dd echo env false grep head id ls mkdir mkfifo mknod mount nproc ping readlink rm seq sh sleep"
APPLETS += " sort stat stty sync test touch tr true tty umount wc yes unshare chroot"


def busybox() -> Path | None:
    found = shutil.which("busybox")
    return Path(found) if found else None


def make_image(folder: Path) -> Path:
    """A layer with busybox, two users and a group."""
    program = busybox()
    assert program is not None
    for name in ("bin", "etc", "tmp", "data", "proc", "sys", "dev", "run"):
        (folder / name).mkdir(parents=True)
    (folder / "tmp").chmod(0o1777)
    shutil.copy2(program, folder / "bin/busybox")
    for applet in APPLETS.split():
        (folder / "bin" / applet).symlink_to("busybox")
    (folder / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nweb:x:100:101:web:/srv/web:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\n"
    )
    (folder / "etc/group").write_text("root:x:0:\nweb:x:101:\nmedia:x:200:web,other\n")
    return folder


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if busybox() is None:
        pytest.skip("needs busybox: apt-get install busybox-static")
    return make_image(tmp_path_factory.mktemp("image") / "layer")


@pytest.fixture
def cgroup() -> str:
    return f"/nanocloud-test-{os.getpid()}"


def traces(tmp_path: Path, cgroup: str) -> list[str]:
    """Everything on the host that a runtime over ``tmp_path`` could have left."""
    found = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(tmp_path) in line]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"*{cgroup}*")]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{cgroup.strip('/')}*")]
    lines = [" ".join(command_line(pid)) for pid in every_pid()]
    return found + [line for line in lines if str(tmp_path) in line]


@pytest.fixture
def nothing_left(tmp_path: Path, cgroup: str) -> Iterator[None]:
    """Fails a test that leaves anything behind once the runtime was purged."""
    yield
    assert traces(tmp_path, cgroup) == []


@pytest.fixture
def build_runtime(tmp_path: Path, cgroup: str, nothing_left: None) -> Iterator[Callable[[], CrunRuntime]]:
    """Builds runtimes over the same folders; takes everything off the host when the test is over."""

    def build() -> CrunRuntime:
        return CrunRuntime(CrunConfig(cgroup=cgroup), state_dir=tmp_path / "state", run_dir=tmp_path / "run")

    yield build
    if os.geteuid() == 0:
        trio.run(build().purge)


@pytest.fixture
async def runtime(build_runtime: Callable[[], CrunRuntime]) -> AsyncIterator[CrunRuntime]:
    async with build_runtime() as opened:
        yield opened


@pytest.fixture
def spec(image: Path, tmp_path: Path) -> Callable[..., ContainerSpec]:
    """Builds the spec of a container that runs a shell script."""

    def build(script: str = "sleep 1000000", *, id: str = "c", **fields: Any) -> ContainerSpec:
        given: dict[str, Any] = {"layers": (image,), "argv": ("/bin/sh", "-c", script)} | fields
        return container_spec(id, tmp_path / "logs", **given)

    return build


@pytest.fixture
def output(runtime: CrunRuntime) -> Callable[[ContainerSpec], Awaitable[tuple[int, str]]]:
    """Runs a container to its end and gives its exit code and what it said, without times and streams."""

    async def run(spec: ContainerSpec) -> tuple[int, str]:
        with trio.fail_after(LIMIT_SECONDS):
            await runtime.create(spec)
            await runtime.start(spec.id)
            ended = await runtime.wait(spec.id)
            await runtime.remove(spec.id)
        return ended.code, "\n".join(text for _, _, text in log_lines(spec.log_path))

    return run


class Signs:
    """How a container tells its test that it has come to a point: it writes into a pipe that both sides have."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        os.mkfifo(folder / "pipe")
        self.give = "echo > /signs/pipe"
        self.mounts = (Mount(source=folder, target="/signs"),)
        self._fd = os.open(folder / "pipe", os.O_RDWR | os.O_NONBLOCK)

    async def wait(self) -> None:
        """Until the next sign."""
        await trio.lowlevel.wait_readable(self._fd)
        os.read(self._fd, 1)

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def signs(tmp_path: Path) -> Iterator[Signs]:
    made = Signs(tmp_path / "signs")
    yield made
    made.close()


def log_lines(path: Path) -> list[tuple[str, str, str]]:
    """Stream, tag and text of each line of a CRI log."""
    lines = path.read_text().splitlines()
    return [(line.split(" ", 3)[1], line.split(" ", 3)[2], line.split(" ", 3)[3]) for line in lines]


@pytest.fixture
def said() -> Callable[[ContainerSpec], list[str]]:
    """What a container has written so far, line by line."""
    return lambda spec: [text for _, _, text in log_lines(spec.log_path)]
