"""What a container is, as its own processes and the kernel see it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from conftest import ID, executed

from nanocloud.errors import InvalidError, ProviderError
from nanocloud.providers.runtime import ContainerSpec, Mount, ProjectedFile, Resources, SeccompProfile, Security
from nanocloud_runtime_runc.capabilities import NAMES, held
from nanocloud_runtime_runc.runtime import RuncRuntime

pytestmark = pytest.mark.root
DEVICES = (
    {"full", "mqueue", "null", "ptmx", "pts", "random", "shm", "tty", "urandom", "zero"}
    | {"core", "fd", "stderr", "stdin", "stdout"}  # links into /proc
)
Spec = Callable[..., ContainerSpec]
Output = Callable[[ContainerSpec], Awaitable[list[str]]]


@pytest.fixture
def strict_umask() -> object:
    """As a server has it."""
    before = os.umask(0o077)
    yield
    os.umask(before)


async def test_more_layers_than_mount_options_have_room_for(output: Output, spec: Spec, tmp_path: Path) -> None:
    layers = [tmp_path / f"a layer with a long name, a comma and a : colon {number:0100}" for number in range(100)]
    for number, layer in enumerate(layers):
        (layer / "parts").mkdir(parents=True)
        (layer / "parts" / str(number)).touch()
        (layer / "top").write_text(str(number))
    built = spec("ls /parts | wc -l; cat /top")
    assert await output(spec("ls /parts | wc -l; cat /top", layers=(*built.layers, *layers))) == ["100", "99"]


async def test_user_is_looked_up_in_the_image(output: Output, spec: Spec, busybox: tuple[Path, ...]) -> None:
    (busybox[0] / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\nwww:x:33:34::/var/www:/bin/sh\n")
    (busybox[0] / "etc" / "group").write_text("www:x:34:\nssl:x:101:other,www\n")
    assert await output(spec("id -u; id -g; id -G; echo $HOME", user="www")) == ["33", "34", "34 101", "/var/www"]


async def test_unknown_user_is_refused_and_leaves_nothing(runtime: RuncRuntime, spec: Spec) -> None:
    with pytest.raises(InvalidError, match=r"web-0: user 'www': the image's /etc/passwd has no 'www'"):
        await runtime.create(spec(user="www"))
    assert await runtime.list() == []


@pytest.mark.usefixtures("strict_umask")
async def test_the_umask_of_the_server_closes_nothing_to_other_users(runtime: RuncRuntime, spec: Spec) -> None:
    made = ProjectedFile(path="/opt/app/conf/key", content=b"open")
    await runtime.create(spec("umask; sleep 1000000", user="1000:1000", files=(made,)))
    await runtime.start(ID)
    assert await executed(runtime, "umask; cat /opt/app/conf/key /sys/fs/cgroup/*/cgroup.procs | head -c 4") == (
        0,
        "0022\nopen",
    )
    assert (await runtime.stop(ID, grace_seconds=0)).code == 137
    assert spec().log_path.read_text().endswith(" F 0022\n")


async def test_files_volumes_and_tmpfs_lie_in_each_other_whatever_their_order(
    output: Output, spec: Spec, tmp_path: Path
) -> None:
    volume, inner = tmp_path / "volume", tmp_path / "inner"
    for folder in (volume, inner):
        folder.mkdir(mode=0o777)
        folder.chmod(0o777)
        (folder / "name").write_text(f"{folder.name}\n")
    built = spec(
        "cat /srv/name /srv/inner/name; stat -c '%a %u %g' /srv/key /srv/tmp; cat /srv/key; "
        "for file in inner/new key; do echo x 2>/dev/null > /srv/$file || echo read-only; done; echo x > /srv/new",
        user="1000",
        tmpfs=("/srv/tmp",),
        files=(ProjectedFile(path="/srv/key", content=b"secret\n", mode=0o400, uid=1000, gid=5),),
        mounts=(Mount(source=inner, target="/srv/inner", read_only=True), Mount(source=volume, target="/srv")),
    )
    assert await output(built) == ["volume", "inner", "400 1000 5", "1777 0 0", "secret", "read-only", "read-only"]
    assert (volume / "new").exists()


async def test_nothing_is_allowed_that_was_not_asked_for(output: Output, spec: Spec) -> None:
    lines = await output(
        spec(
            "grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status | cut -f 2; ulimit -c; ls /dev | head -c 4000; "
            "echo x 2>/dev/null > /proc/sys/kernel/hostname || echo read-only"
        )
    )
    assert lines[:8] == ["0" * 16] * 5 + ["1", "2", "0"]
    assert set(lines[8:-1]) <= DEVICES
    assert lines[-1] == "read-only"


async def test_port_80_needs_no_capability(output: Output, spec: Spec) -> None:
    assert await output(spec("nc -l -p 80 -w 1 & sleep 0; echo $?", user="1000")) == ["0"]


@pytest.mark.parametrize("user", ["", "1000"])
async def test_a_capability_that_is_asked_for_is_held_whoever_runs(output: Output, spec: Spec, user: str) -> None:
    held = Security(capabilities=frozenset({"CAP_NET_RAW"}))
    script = "grep -E '^Cap(Eff|Bnd)' /proc/self/status | cut -f 2"
    assert await output(spec(script, user=user, security=held)) == [f"{1 << 13:016x}"] * 2


async def test_a_capability_that_the_server_lacks_is_refused(runtime: RuncRuntime, spec: Spec) -> None:
    with pytest.raises(InvalidError, match="does not hold CAP_NO_SUCH"):
        await runtime.create(spec(security=Security(capabilities=frozenset({"CAP_NO_SUCH"}))))


async def test_privileged_has_devices_and_capabilities_but_namespaces_too(output: Output, spec: Spec) -> None:
    script = "grep -E '^(CapBnd|Seccomp:)' /proc/self/status | cut -f 2; ls /dev/kmsg; ls /proc | grep -c '^[0-9]'"
    bounding, seccomp, device, processes = await output(spec(script, security=Security(privileged=True)))
    own = sum(1 << NAMES.index(name.removeprefix("CAP_")) for name in held())
    assert (bounding, seccomp, device) == (f"{own:016x}", "0", "/dev/kmsg")
    assert int(processes) < 10


@pytest.mark.parametrize("profile", [SeccompProfile.BASELINE, SeccompProfile.RUNTIME_DEFAULT])
async def test_forbidden_calls_fail_and_programs_go_on(output: Output, spec: Spec, profile: SeccompProfile) -> None:
    tried = "unshare -U true 2>&1 | grep -c 'not permitted'; chroot / true 2>/dev/null || echo refused"
    assert await output(spec(tried, security=Security(seccomp=profile))) == ["1", "refused"]


async def test_memory_that_runs_out_is_told(runtime: RuncRuntime, spec: Spec) -> None:
    limits = Resources(memory_bytes=32 << 20)
    await runtime.create(spec("exec dd if=/dev/zero of=/dev/null bs=256M count=1", resources=limits))
    await runtime.start(ID)
    ended = await runtime.wait(ID)
    assert (ended.code, ended.out_of_memory) == (137, True)
    [status] = await runtime.list()
    assert status.exit == ended


async def test_a_container_that_forks_for_ever_is_held_and_removed(runtime: RuncRuntime, spec: Spec) -> None:
    await runtime.create(spec("f() { f | f & f; }; f", resources=Resources(pids=50)))
    await runtime.start(ID)
    await runtime.remove(ID)
    assert await runtime.list() == []


async def test_read_only_root_leaves_what_is_mounted_writable(output: Output, spec: Spec) -> None:
    script = "echo x 2>/dev/null > /tmp/x || echo read-only; echo x > /run/x && echo x > /cache/x && echo written"
    built = spec(script, tmpfs=("/cache",), security=Security(read_only_root=True))
    assert await output(built) == ["read-only", "written"]


async def test_a_terminal_of_its_own_is_logged(output: Output, spec: Spec) -> None:
    assert [line.rstrip("\r") for line in await output(spec("tty; echo error >&2", terminal=True))] == [
        "/dev/pts/0",
        "error",
    ]


@pytest.mark.parametrize(
    ("content", "code"),
    [("no program", 126), ("\x7fELF broken", 126), ("#!/no/such\n", 127)],
    ids=["text", "elf", "script"],
)
async def test_an_execve_that_fails_late_is_told_by_start(
    runtime: RuncRuntime, spec: Spec, busybox: tuple[Path, ...], content: str, code: int
) -> None:
    program = busybox[0] / "bin" / "broken"
    program.write_text(content)
    program.chmod(0o755)
    await runtime.create(spec(argv=("broken",)))
    with pytest.raises(ProviderError, match=r"web-0: exec /bin/broken: "):
        await runtime.start(ID)
    assert (await runtime.wait(ID)).code == code


async def test_a_log_begins_anew_at_its_limit(output: Output, spec: Spec) -> None:
    lines = await output(spec("seq 1 2000; echo the end", log_limit_bytes=16 * 1024))
    assert lines[-1] == "the end"
    assert spec().log_path.stat().st_size <= 17 * 1024
