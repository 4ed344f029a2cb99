"""A container from its making to its removal: process, user, output, signals."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from nanocloud.errors import InvalidError, ProviderError, UnavailableError
from nanocloud.providers.runtime import ContainerId, ContainerState, ExecSpec, Mount, ProjectedFile
from nanocloud_runtime_crun import _syscalls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from nanocloud.providers.runtime import ContainerSpec
    from nanocloud_runtime_crun.runtime import CrunRuntime

    Build = Callable[..., ContainerSpec]
    Said = Callable[[ContainerSpec], list[str]]
    Output = Callable[[ContainerSpec], Awaitable[tuple[int, str]]]

pytestmark = pytest.mark.root

C = ContainerId("c")
FOREVER = "while true; do sleep 0.01; done"


async def test_environment_is_what_was_asked_and_a_path_and_a_home(output: Output, spec: Build) -> None:
    code, text = await output(spec("env | sort", environment={"A": "1 2", "B": "=x"}, user="web"))
    named = [line for line in text.splitlines() if not line.startswith(("PWD=", "SHLVL="))]
    assert (code, named) == (
        0,
        ["A=1 2", "B==x", "HOME=/srv/web", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    )


@pytest.mark.parametrize(
    ("user", "ids"),
    [
        ("", "0:0:0"),
        ("web", "100:101:101 200"),
        ("web:media", "100:200:200"),
        ("100", "100:101:101 200"),
        ("1234", "1234:0:0"),
        ("1234:5", "1234:5:5"),
    ],
)
async def test_user_is_looked_up_in_the_image(output: Output, spec: Build, user: str, ids: str) -> None:
    _, text = await output(spec('echo "$(id -u):$(id -g):$(id -G)"', user=user))
    assert text == ids


@pytest.mark.parametrize("user", ["ghost", "web:ghost", "web:", "4294967295", "-1", "٣"])
async def test_user_that_the_image_does_not_have_is_refused(runtime: CrunRuntime, spec: Build, user: str) -> None:
    with pytest.raises(InvalidError, match="user"):
        await runtime.create(spec(user=user))
    assert list(await runtime.list()) == []


async def test_working_directory_is_made_where_it_is_missing(output: Output, spec: Build) -> None:
    assert await output(spec("pwd", working_directory="/srv/deep/er")) == (0, "/srv/deep/er")


async def test_hostname_is_the_containers_own(output: Output, spec: Build) -> None:
    host = os.uname().nodename
    assert await output(spec("cat /proc/sys/kernel/hostname", hostname="web-0")) == (0, "web-0")
    assert os.uname().nodename == host


async def test_signal_ends_with_128_and_its_number(output: Output, spec: Build) -> None:
    assert await output(spec("(sleep 1000) & kill -9 $!; wait $!")) == (137, "Killed")


async def test_stop_gives_the_process_its_grace(runtime: CrunRuntime, spec: Build, signs: Any, said: Said) -> None:
    wanted = spec(f"trap 'echo bye; exit 5' TERM; {signs.give}; {FOREVER}", mounts=signs.mounts)
    with trio.fail_after(30):
        await runtime.create(wanted)
        await runtime.start(C)
        await signs.wait()
        assert (await runtime.stop(C, grace_seconds=20)).code == 5
    assert said(wanted) == ["bye"]


async def test_stop_signal_is_the_images(runtime: CrunRuntime, spec: Build, signs: Any) -> None:
    script = f"trap 'exit 6' QUIT; {signs.give}; {FOREVER}"
    with trio.fail_after(30):
        await runtime.create(spec(script, stop_signal="SIGQUIT", mounts=signs.mounts))
        await runtime.start(C)
        await signs.wait()
        assert (await runtime.stop(C, grace_seconds=20)).code == 6


async def test_stop_with_less_patience_overtakes_one_with_more(runtime: CrunRuntime, spec: Build, signs: Any) -> None:
    wanted = spec(f"trap '' TERM; {signs.give}; {FOREVER}", mounts=signs.mounts)
    codes = []

    async def stop(grace_seconds: float) -> None:
        codes.append((await runtime.stop(C, grace_seconds=grace_seconds)).code)

    with trio.fail_after(30):
        await runtime.create(wanted)
        await runtime.start(C)
        await signs.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop, 3600)
            nursery.start_soon(stop, 0)
    assert codes == [137, 137]


async def test_every_process_of_the_container_ends_with_it(runtime: CrunRuntime, spec: Build) -> None:
    with trio.fail_after(30):
        await runtime.create(spec("sleep 1000000 & sleep 1000000 & wait"))
        await runtime.start(C)
        await runtime.stop(C, grace_seconds=0)
    assert runtime._host.cgroups.members(C) == []


async def test_created_container_runs_nothing_until_it_is_started(
    runtime: CrunRuntime, spec: Build, tmp_path: Path
) -> None:
    (tmp_path / "shared").mkdir()
    mount = Mount(source=tmp_path / "shared", target="/shared")
    with trio.fail_after(30):
        await runtime.create(spec("touch /shared/ran", mounts=(mount,)))
        [status] = await runtime.list()
        assert status.state is ContainerState.CREATED
        assert status.pid is not None
        assert not (tmp_path / "shared/ran").exists()
        assert (await runtime.stop(C, grace_seconds=30)).code == 137
        assert not (tmp_path / "shared/ran").exists()
        with pytest.raises(ProviderError, match="has run already"):
            await runtime.start(C)


async def test_start_works_where_tracing_is_forbidden(
    runtime: CrunRuntime, spec: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(_syscalls, "ptrace", forbidden)
    await runtime.create(spec("exit 4"))
    assert (await runtime.start(C)).state is ContainerState.RUNNING
    with trio.fail_after(30):
        assert (await runtime.wait(C)).code == 4


async def test_started_twice_is_started_once(runtime: CrunRuntime, spec: Build) -> None:
    await runtime.create(spec())
    first = await runtime.start(C)
    assert await runtime.start(C) == first


async def test_failed_create_leaves_nothing(runtime: CrunRuntime, spec: Build, tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match="copy its mounts"):
        await runtime.create(spec(mounts=(Mount(source=tmp_path / "absent", target="/x"),)))
    assert list(await runtime.list()) == []
    assert not (tmp_path / "state/containers/c").exists()
    await runtime.create(spec())


async def test_cancelled_create_leaves_nothing(runtime: CrunRuntime, spec: Build, tmp_path: Path) -> None:
    for deadline in (0.0, 0.004, 0.008, 0.016):
        with trio.move_on_after(deadline) as scope:
            await runtime.create(spec())
        if scope.cancelled_caught:
            assert list(await runtime.list()) == []
            assert not (tmp_path / "state/containers/c").exists()
        await runtime.remove(C)


@pytest.mark.parametrize(
    ("content", "mode", "code"),
    [(None, 0o755, 127), ("#!/bin/none\n", 0o755, 127), ("garbage\n", 0o755, 126), ("#!/bin/sh\n", 0o644, 126)],
)
async def test_program_that_cannot_be_executed(
    runtime: CrunRuntime, spec: Build, tmp_path: Path, content: str | None, mode: int, code: int
) -> None:
    (tmp_path / "data").mkdir()
    if content is not None:
        (tmp_path / "data/program").write_text(content)
        (tmp_path / "data/program").chmod(mode)
    with trio.fail_after(30):
        await runtime.create(spec(argv=("/data/program",), mounts=(Mount(source=tmp_path / "data", target="/data"),)))
        with pytest.raises(ProviderError, match="could not be started"):
            await runtime.start(C)
        assert (await runtime.wait(C)).code == code
        assert (await runtime.stop(C, grace_seconds=0)).code == code
        with pytest.raises(UnavailableError):
            await runtime.exec(C, ExecSpec(argv=("true",))).__aenter__()


async def test_wait_ends_for_a_container_that_is_refused_later(runtime: CrunRuntime, spec: Build) -> None:
    codes = []

    async def wait() -> None:
        codes.append((await runtime.wait(C)).code)

    with trio.fail_after(30):
        await runtime.create(spec(argv=("/absent",)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(ProviderError):
                await runtime.start(C)
    assert codes == [127]


async def test_lines_are_logged_with_time_stream_and_tag(output: Output, spec: Build) -> None:
    wanted = spec("echo one; echo two >&2; echo -n three")
    assert (await output(wanted))[0] == 0
    lines = wanted.log_path.read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}\+00:00 std(out|err) [FP] ", line) for line in lines)
    assert sorted(line.split(" ", 1)[1] for line in lines) == ["stderr F two", "stdout F one", "stdout P three"]
    assert wanted.log_path.stat().st_mode & 0o777 == 0o600
    assert wanted.log_path.parent.stat().st_mode & 0o777 == 0o700


async def test_log_stays_within_its_limit(output: Output, spec: Build) -> None:
    wanted = spec("seq 1 20000", log_limit_bytes=64 * 1024)
    assert (await output(wanted))[0] == 0
    assert wanted.log_path.stat().st_size <= 64 * 1024
    assert wanted.log_path.read_text().splitlines()[-1].endswith(" 20000")


async def test_terminal_is_logged_as_output(output: Output, spec: Build) -> None:
    code, text = await output(spec("tty; echo error >&2; stty size", terminal=True))
    assert (code, text.replace("\r", "").splitlines()[:2]) == (0, ["/dev/pts/0", "error"])


async def test_files_are_read_only_and_theirs(output: Output, spec: Build, runtime: CrunRuntime) -> None:
    files = (
        ProjectedFile(path="/etc/hosts", content=b"127.0.0.1 me\n"),
        ProjectedFile(path="/run/secrets/key", content=b"s3cret", mode=0o400, uid=100, gid=101),
    )
    script = "cat /etc/hosts /run/secrets/key; echo; stat -c '%a %u:%g' /run/secrets/key; : 2> /dev/null > /etc/hosts"
    code, text = await output(spec(script, files=files, user="web"))
    assert (code, text.split()) == (1, ["127.0.0.1", "me", "s3cret", "400", "100:101"])


async def test_mounts_are_shared_with_the_host(output: Output, spec: Build, tmp_path: Path) -> None:
    for name in ("rw", "ro"):
        (tmp_path / name).mkdir()
    mounts = (
        Mount(source=tmp_path / "rw", target="/data/rw"),
        Mount(source=tmp_path / "ro", target="/data/ro", read_only=True),
    )
    script = "exec 2>&1; echo hello > /data/rw/file; echo hello > /data/ro/file"
    code, text = await output(spec(script, mounts=mounts))
    assert (code, "Read-only file system" in text) == (1, True)
    assert (tmp_path / "rw/file").read_text() == "hello\n"
    assert list((tmp_path / "ro").iterdir()) == []


async def test_writable_layer_is_the_containers_own(output: Output, spec: Build, image: Path) -> None:
    assert (await output(spec("rm /etc/group; echo new > /etc/passwd; cat /etc/passwd")))[1] == "new"
    assert (image / "etc/group").exists()
    assert (await output(spec("grep -c . /etc/passwd", id="d")))[1] == "3"


async def test_upper_layers_cover_lower_ones(output: Output, spec: Build, image: Path, tmp_path: Path) -> None:
    layers = [image]
    for number in range(40):  # more than the 4096 bytes of mount(2) would name by their paths
        layer = tmp_path / f"layer with : comma, and \\ {number}" / ("x" * 100)
        layer.mkdir(parents=True)
        (layer / "which").write_text(f"{number}\n")
        layers.append(layer)
    assert await output(spec("cat /which", layers=tuple(layers))) == (0, "39")


async def test_twenty_containers_leave_no_trace(
    output: Output, spec: Build, tmp_path: Path, runtime: CrunRuntime, cgroup: str
) -> None:
    for _ in range(20):
        await output(spec("true"))
    assert list((tmp_path / "state/containers").glob("[!.]*")) == []
    assert list((tmp_path / "run/runtime/containers").iterdir()) == []
    assert list((tmp_path / "run/runtime/crun").iterdir()) == []
    assert runtime._host.cgroups.members("c") == []
    assert not any((root / cgroup.strip("/") / "c").exists() for root in runtime._host.cgroups._roots())
