"""What a container may not do, as the kernel sees it from inside."""

from __future__ import annotations

import json
import os
import resource
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from nanocloud.errors import InvalidError, ProviderError
from nanocloud.providers.runtime import (
    ContainerId,
    ContainerState,
    Mount,
    ProjectedFile,
    Resources,
    SeccompProfile,
    Security,
)
from nanocloud_runtime_crun import _syscalls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from nanocloud.providers.runtime import ContainerSpec
    from nanocloud_runtime_crun.runtime import CrunRuntime

    Build = Callable[..., ContainerSpec]
    Output = Callable[[ContainerSpec], Awaitable[tuple[int, str]]]

pytestmark = pytest.mark.root

STATUS = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr -d '\\t'"
DEVICES = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
ROOT_CAPABILITIES = frozenset({"CAP_CHOWN", "CAP_SETUID", "CAP_SETGID"})


async def _status(output: Output, spec: ContainerSpec) -> dict[str, int]:
    code, text = await output(spec)
    assert code == 0, text
    return {name: int(value, 16) for name, value in (line.split(":") for line in text.splitlines())}


async def test_nothing_is_permitted_by_default(output: Output, spec: Build) -> None:
    status = await _status(output, spec(STATUS))
    assert status == {
        "CapInh": 0,
        "CapPrm": 0,
        "CapEff": 0,
        "CapBnd": 0,
        "CapAmb": 0,
        "NoNewPrivs": 1,
        "Seccomp": 2,
    }


async def test_capabilities_are_those_asked_for(output: Output, spec: Build) -> None:
    security = Security(capabilities=ROOT_CAPABILITIES)
    root = await _status(output, spec(STATUS, security=security))
    mask = 1 << 0 | 1 << 6 | 1 << 7
    assert (root["CapEff"], root["CapBnd"], root["CapAmb"], root["NoNewPrivs"]) == (mask, mask, 0, 1)
    user = await _status(output, spec(STATUS, security=security, user="web", id="d"))
    assert (user["CapEff"], user["CapBnd"], user["CapAmb"]) == (mask, mask, mask)


async def test_privileged_has_what_the_server_has_but_gains_nothing(output: Output, spec: Build) -> None:
    status = await _status(output, spec(STATUS, security=Security(privileged=True)))
    own = int(_field("CapBnd"), 16)
    assert (status["CapEff"], status["NoNewPrivs"], status["Seccomp"]) == (own, 1, 0)


def _field(name: str) -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{name}:"))


async def test_capability_that_cannot_be_given_is_refused(runtime: CrunRuntime, spec: Build) -> None:
    for name, reason in (("CAP_FLY", "is no capability"), ("SYS_ADMIN", "is no capability")):
        with pytest.raises(InvalidError, match=reason):
            await runtime.create(spec(security=Security(capabilities=frozenset({name}))))


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("unshare -U true", "Operation not permitted"),
        ("unshare -n true", "Operation not permitted"),
        ("mount -t tmpfs x /tmp", "permission denied"),
        ("umount /proc", "Operation not permitted"),
        ("chroot /", "Operation not permitted"),
        ("mknod /tmp/disk b 254 0", "Operation not permitted"),
    ],
)
@pytest.mark.parametrize("profile", [SeccompProfile.BASELINE, SeccompProfile.RUNTIME_DEFAULT])
async def test_calls_that_no_service_needs_are_refused(
    output: Output, spec: Build, command: str, reason: str, profile: SeccompProfile
) -> None:
    code, text = await output(spec(f"exec 2>&1; {command}", security=Security(seccomp=profile)))
    assert code != 0
    assert reason in text


async def test_localhost_profile_is_taken_from_its_file(output: Output, spec: Build, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    rules = [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
    security = Security(seccomp=SeccompProfile.LOCALHOST, seccomp_path=profile)
    assert "No space left on device" in (await output(spec("exec 2>&1; mkdir /tmp/x", security=security)))[1]


@pytest.fixture
def other_file_system(tmp_path: Path) -> Iterator[Path]:
    """A folder whose mount no container's view has."""
    folder = tmp_path / "other"
    folder.mkdir()
    _syscalls.mount("tmpfs", str(folder), "tmpfs", 0)
    yield folder
    _syscalls.umount(str(folder))


async def test_localhost_profile_may_be_anywhere_on_the_host(
    output: Output, spec: Build, other_file_system: Path
) -> None:
    profile = other_file_system / "profile.json"
    profile.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    security = Security(seccomp=SeccompProfile.LOCALHOST, seccomp_path=profile)
    assert await output(spec("echo fine", security=security)) == (0, "fine")


async def test_localhost_profile_that_is_none_is_refused(runtime: CrunRuntime, spec: Build, tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text('{"defaultAction": "SCMP_ACT_MAYBE"}')
    for path in (tmp_path / "profile.json", tmp_path / "absent.json", None):
        security = Security(seccomp=SeccompProfile.LOCALHOST, seccomp_path=path)
        with pytest.raises(InvalidError, match=r"seccomp"):
            await runtime.create(spec(security=security))
    assert list(await runtime.list()) == []


async def test_kernel_secrets_are_masked(output: Output, spec: Build) -> None:
    script = "cat /proc/keys /proc/timer_list /proc/interrupts | wc -c; ls /sys/firmware | wc -l"
    assert await output(spec(script)) == (0, "0\n0")


@pytest.mark.parametrize("path", ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper"])
@pytest.mark.parametrize("privileged", [False, True])
async def test_kernel_settings_cannot_be_written(output: Output, spec: Build, path: str, privileged: bool) -> None:
    security = Security(privileged=privileged)
    code, text = await output(spec(f"exec 2>&1; test -e {path} && echo x > {path}", security=security))
    assert code == 1
    assert "Read-only file system" in text or text == ""  # this kernel has no such file


async def test_cgroups_cannot_be_written(output: Output, spec: Build) -> None:
    script = "exec 2>&1; mkdir /sys/fs/cgroup/memory/x /sys/fs/cgroup/x"
    assert (await output(spec(script)))[0] == 1


async def test_only_harmless_devices_are_there(output: Output, spec: Build) -> None:
    code, text = await output(spec("ls /dev; grep ' /dev ' /proc/mounts | cut -d' ' -f1"))
    assert (code, set(text.split()) - {"console", "core"}) == (0, set(DEVICES.split()) | {"tmpfs"})


async def test_device_node_of_an_image_is_a_mere_file(output: Output, spec: Build, image: Path, tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    os.mknod(layer / "disk", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    code, text = await output(spec("cat /disk 2>&1", layers=(image, layer)))
    assert (code, "Permission denied" in text) == (1, True)


async def test_setuid_program_gains_nothing(output: Output, spec: Build, image: Path, tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    (layer / "setuid").mkdir(parents=True)
    shutil.copy2(image / "bin/busybox", layer / "setuid/busybox")
    (layer / "setuid/busybox").chmod(0o4755)
    argv = ("/setuid/busybox", "id", "-u")
    assert await output(spec(argv=argv, layers=(image, layer), user="web")) == (0, "100")


async def test_root_can_be_read_only(output: Output, spec: Build) -> None:
    script = "exec 2>&1; echo x > /tmp/x; echo x > /run/x && echo x > /cache/x && echo fine"
    code, text = await output(spec(script, security=Security(read_only_root=True), tmpfs=("/cache",)))
    assert (code, "Read-only file system" in text, text.splitlines()[-1]) == (0, True, "fine")


async def test_host_is_not_seen(output: Output, spec: Build) -> None:
    code, text = await output(spec("ls /proc | grep -c '^[0-9]'; grep -c : /proc/net/dev"))
    processes, interfaces = text.splitlines()
    assert (code, interfaces) == (0, "1")
    assert int(processes) <= 3


async def test_low_port_needs_no_capability(output: Output, spec: Build) -> None:
    assert await output(spec("cat /proc/sys/net/ipv4/ip_unprivileged_port_start")) == (0, "0")


@pytest.mark.parametrize("link", ["/", "/../../../..", "/proc/1/root", "../../../../../.."])
async def test_links_of_an_image_lead_nowhere_on_the_host(
    output: Output, spec: Build, image: Path, tmp_path: Path, link: str
) -> None:
    """Targets below ``/etc`` and ``/data`` where the image has links instead of folders."""
    layer = tmp_path / "layer"
    layer.mkdir()
    for name in ("escape", "out"):
        (layer / name).symlink_to(link)
    marker = f"marker-{os.getpid()}"
    (tmp_path / "volume").mkdir()
    wanted = spec(
        f"cat /{marker}-file /escape/{marker}-file",
        layers=(image, layer),
        files=(ProjectedFile(path=f"/escape/{marker}-file", content=b"inside"),),
        mounts=(Mount(source=tmp_path / "volume", target=f"/out/{marker}-folder"),),
        working_directory=f"/out/{marker}-cwd",
    )
    try:
        code, text = await output(wanted)
    except ProviderError:
        pass  # refusing is as good
    else:
        assert (code, text.replace("\n", "")) == (0, "insideinside")
    assert not [name for name in os.listdir("/") if name.startswith(marker)]


async def test_image_with_a_link_for_a_system_folder_is_refused(
    runtime: CrunRuntime, spec: Build, image: Path, tmp_path: Path
) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    (layer / "proc").symlink_to("/etc")
    with pytest.raises(ProviderError, match="crun could not make"):
        await runtime.create(spec(layers=(image, layer)))
    assert list(await runtime.list()) == []


async def test_hostile_user_files_are_not_followed(
    runtime: CrunRuntime, spec: Build, image: Path, tmp_path: Path
) -> None:
    """``/etc/passwd`` as a link to the host's, a pipe, a folder: the image then has no such user."""
    for kind in ("link", "pipe", "folder"):
        layer = tmp_path / kind
        (layer / "etc").mkdir(parents=True)
        if kind == "link":
            (layer / "etc/passwd").symlink_to("/../../../../../etc/passwd")
        elif kind == "pipe":
            os.mkfifo(layer / "etc/passwd")
        else:
            (layer / "etc/passwd").mkdir()
        with pytest.raises(InvalidError, match="daemon"), trio.fail_after(30):
            await runtime.create(spec(layers=(image, layer), user="daemon"))


async def test_memory_limit_is_enforced(runtime: CrunRuntime, spec: Build) -> None:
    wanted = spec("dd if=/dev/zero of=/dev/null bs=200M count=1", resources=Resources(memory_bytes=64 * 1024 * 1024))
    with trio.fail_after(30):
        await runtime.create(wanted)
        await runtime.start(wanted.id)
        ended = await runtime.wait(wanted.id)
    assert (ended.code, ended.out_of_memory) == (137, True)
    [status] = await runtime.list()
    assert status.exit == ended


async def test_process_limit_is_enforced(output: Output, spec: Build) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 & done; echo all"
    code, text = await output(spec(script, resources=Resources(pids=5)))
    assert code != 0
    assert "all" not in text


async def test_processor_limit_is_written(runtime: CrunRuntime, spec: Build, cgroup: str) -> None:
    await runtime.create(spec(resources=Resources(cpu_millicores=250, pids=None)))
    [status] = await runtime.list()
    assert status.state is ContainerState.CREATED
    layout = runtime._host.cgroups.layout
    if layout.version == 2:
        assert (layout.root / cgroup.strip("/") / "c/cpu.max").read_text() == "25000 100000\n"
    else:
        assert (layout.root / "cpu" / cgroup.strip("/") / "c/cpu.cfs_quota_us").read_text() == "25000\n"


async def test_open_files_never_exceed_the_servers_own_limit(output: Output, spec: Build) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    code, text = await output(spec("grep 'open files' /proc/self/limits; grep core /proc/self/limits"))
    assert code == 0
    assert str(min(hard, 65536)) in text.splitlines()[0].split()
    assert text.splitlines()[1].split()[4:6] == ["0", "0"]


@pytest.mark.parametrize("target", ["/", "/proc", "/proc/1", "/sys/fs", "/dev", "/dev/pts", "etc", "/a/../b", "/a\0"])
async def test_target_that_would_cover_the_system_is_refused(
    runtime: CrunRuntime, spec: Build, tmp_path: Path, target: str
) -> None:
    with pytest.raises(InvalidError, match="mounts"):
        await runtime.create(spec(mounts=(Mount(source=tmp_path, target=target),)))


@pytest.mark.parametrize("name", ["", "C", "../x", "a/b", "a b", "-a", "a" * 64, "ü"])
async def test_id_that_is_no_name_is_refused(runtime: CrunRuntime, spec: Build, name: str) -> None:
    with pytest.raises(InvalidError, match="id"):
        await runtime.create(spec(id=ContainerId(name), log_path=runtime._runtime_dir / "log"))
    await runtime.remove(ContainerId(name))
