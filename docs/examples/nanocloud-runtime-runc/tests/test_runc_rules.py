"""What is decided without touching the machine: filters, users, words, groups, trees."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nanocloud.errors import InvalidError
from nanocloud.providers.runtime import (
    ContainerId,
    ContainerSpec,
    Mount,
    ProjectedFile,
    SeccompProfile,
    Security,
)
from nanocloud_runtime_runc import record, seccomp
from nanocloud_runtime_runc.cgroups import Groups
from nanocloud_runtime_runc.checks import check
from nanocloud_runtime_runc.processes import Process
from nanocloud_runtime_runc.record import Phase, Record, Refusal
from nanocloud_runtime_runc.runc import NoProgramError, refusal
from nanocloud_runtime_runc.trees import remove_tree
from nanocloud_runtime_runc.users import User, find_user

PASSWD = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:34::/var/www:\n33:x:7:7::/seven:\nbroken:x:y:z::/:\nshort:x:1\n"
GROUP = "www:x:34:\nssl:x:101:other,www\nother:x:102:wwwx\n"


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text(PASSWD)
    (tmp_path / "etc" / "group").write_text(GROUP)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("", User(home="/root")),
        ("www", User(33, 34, (101,), "/var/www")),
        ("33", User(7, 7, (), "/seven")),
        ("1000", User(1000)),
        ("www:ssl", User(33, 101, (), "/var/www")),
        ("1000:102", User(1000, 102)),
    ],
)
def test_users_by_the_images_files(rootfs: Path, text: str, user: User) -> None:
    assert find_user(rootfs, text) == user


@pytest.mark.parametrize("text", ["no-such", "broken", "short", "www:no-such", "www:", "4294967295", "-1", "1:-1"])
def test_users_that_the_image_does_not_have(rootfs: Path, text: str) -> None:
    with pytest.raises(InvalidError, match=f"user {text!r}: "):
        find_user(rootfs, text)


@pytest.mark.parametrize("what", ["file", "folder", "pipe", "device"])
def test_users_files_are_the_images_own(tmp_path: Path, what: str) -> None:
    """A link would lead to the host's, a pipe would wait for ever, a device might do something."""
    outside, inside = tmp_path / "outside", tmp_path / "image"
    (outside / "etc").mkdir(parents=True)
    (outside / "etc" / "passwd").write_text(PASSWD)
    inside.mkdir()
    if what == "folder":
        (inside / "etc").symlink_to(outside / "etc")
    else:
        (inside / "etc").mkdir()
        file = inside / "etc" / "passwd"
        if what == "file":
            file.symlink_to(outside / "etc" / "passwd")
        elif what == "pipe":
            os.mkfifo(file)
        else:
            file.symlink_to("/dev/zero")
    with pytest.raises(InvalidError):
        find_user(inside, "www")


def filter_of(**security: Any) -> dict[str, Any]:
    found = seccomp.filter_of(Security(**security), security.get("capabilities", frozenset()), "container c")
    assert found is not None
    return found


def names(rules: dict[str, Any], action: str) -> set[str]:
    return {
        name for rule in rules["syscalls"] if rule["action"] == action and "args" not in rule for name in rule["names"]
    }


def test_the_baseline_is_stricter_than_the_default_of_engines() -> None:
    baseline, wider = (filter_of(seccomp=p) for p in (SeccompProfile.BASELINE, SeccompProfile.RUNTIME_DEFAULT))
    assert names(baseline, "SCMP_ACT_ALLOW") < names(wider, "SCMP_ACT_ALLOW")
    for each in (baseline, wider):
        allowed, forbidden = names(each, "SCMP_ACT_ALLOW"), names(each, "SCMP_ACT_ERRNO")
        assert not allowed & forbidden
        assert {"mount", "unshare", "bpf", "keyctl"} <= forbidden
        assert not {"clone3", "no_such_call"} & (allowed | forbidden)  # unknown: ENOSYS
        assert each["defaultErrnoRet"] == 38


def test_a_capability_brings_the_calls_that_need_it() -> None:
    assert "chroot" in names(filter_of(capabilities=frozenset({"CAP_SYS_CHROOT"})), "SCMP_ACT_ALLOW")
    assert {"clone", "mount"} <= names(filter_of(capabilities=frozenset({"CAP_SYS_ADMIN"})), "SCMP_ACT_ALLOW")


def test_a_privileged_container_has_no_filter() -> None:
    assert seccomp.filter_of(Security(privileged=True), frozenset(), "container c") is None


def test_a_profile_of_a_file_is_compiled_for_the_container(tmp_path: Path) -> None:
    def rule(name: str, **conditions: Any) -> dict[str, Any]:
        return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": [], "comment": "", **conditions}

    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": None},
        ],
        "syscalls": [
            rule("read"),
            rule("chroot", includes={"caps": ["CAP_SYS_CHROOT"]}),
            rule("bpf", includes={"caps": ["CAP_BPF"]}),
            rule("clone", excludes={"caps": ["CAP_SYS_CHROOT"]}),
            rule("clone3", excludes={"caps": ["CAP_BPF"]}),
            rule("ptrace", includes={"minKernel": "4.8"}),
            rule("futex2", includes={"minKernel": "99.0"}),
            rule("s390_runtime_instr", includes={"arches": ["s390x"]}),
        ],
    }
    file = tmp_path / "profile.json"
    file.write_text(json.dumps(profile))
    given = frozenset({"CAP_SYS_CHROOT"})
    found = filter_of(seccomp=SeccompProfile.LOCALHOST, seccomp_path=file, capabilities=given)
    assert names(found, "SCMP_ACT_ALLOW") == {"read", "chroot", "clone3", "ptrace"}
    assert found["architectures"] in (["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], ["SCMP_ARCH_AARCH64"])
    assert {key for each in found["syscalls"] for key in each} == {"names", "action"}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"defaultAction": "x", "syscalls": [3]}', '{"defaultAction": "x", "syscalls": 3}']
)
def test_a_profile_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "profile.json"
    file.write_text(text)
    with pytest.raises(InvalidError, match="container c: "):
        filter_of(seccomp=SeccompProfile.LOCALHOST, seccomp_path=file)
    with pytest.raises(InvalidError, match="needs a file"):
        filter_of(seccomp=SeccompProfile.LOCALHOST)


@pytest.mark.parametrize(
    "bad",
    [
        {"id": "../x"},
        {"id": "Web"},
        {"argv": ()},
        {"argv": ("",)},
        {"argv": ("a\0b",)},
        {"layers": ()},
        {"stop_signal": "SIGNOTHING"},
        {"working_directory": "srv"},
        {"log_path": Path("/logs/a:b")},
        {"tmpfs": ("/",)},
        {"mounts": (Mount(source=Path("/srv"), target="/a/../../b"),)},
        {"files": (ProjectedFile(path="etc/hosts", content=b""),)},
        {"environment": {"A=B": "secret"}},
        {"environment": {"A": "secret\0"}},
    ],
    ids=str,
)
def test_specs_that_cannot_be(bad: dict[str, Any]) -> None:
    good: dict[str, Any] = {
        "id": ContainerId("c"),
        "argv": ("run",),
        "layers": (Path("/layer"),),
        "log_path": Path("/logs/0.log"),
    }
    check(ContainerSpec(**good))
    with pytest.raises(InvalidError) as raised:
        check(ContainerSpec(**(good | bad)))
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


RUNC = "runc create failed: unable to start container process: "


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (RUNC + r'exec: \"/bin/no\": stat /bin/no: no such file or directory"', 127),
        (RUNC + r"exec: \"no\": executable file not found in $PATH", 127),
        (RUNC + r"exec: \"/bin\": permission denied", 126),
        ("exec /bin/broken: exec format error", 126),
        ("exec /bin/script: no such file or directory", 127),
        (RUNC + 'error mounting "/x" to rootfs at "/x": no such file or directory', None),
        ("container with given ID already exists", None),
        ("", None),
    ],
)
def test_what_runcs_words_mean(words: str, code: int | None) -> None:
    error = refusal("container c", words)
    assert (error.code if isinstance(error, NoProgramError) else None) == code
    assert str(error).startswith("container c: ")
    assert len(str(error).splitlines()) == 1


def test_a_record_reads_back_and_a_broken_one_is_none(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    assert record.read(file) is None
    whole = Record(
        phase=Phase.CREATED,
        labels={"a": "b"},
        log_path=Path("/logs/0.log"),
        stop_signal=15,
        created_at=1.5,
        refusal=Refusal(127, "no"),
        first=Process(2, 3),
    )
    record.write(file, whole)
    assert record.read(file) == whole
    for text in ("", "{", "[]", "{}", '{"phase": "none"}'):
        file.write_text(text)
        assert record.read(file) is None


# ---- control groups, on folders in the form of each layout


@pytest.mark.parametrize(
    ("layout", "where"),
    [(("memory", "systemd", "unified"), "systemd"), (("memory", "unified"), "unified"), ((".",), ".")],
    ids=["hybrid", "hybrid without systemd", "version 2"],
)
def test_a_monitor_leaves_the_group_by_which_service_managers_know_a_service(
    tmp_path: Path, layout: tuple[str, ...], where: str
) -> None:
    for name in layout:
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "cgroup.procs").touch()
    Groups("/parent", tmp_path).adopt_monitor(7, "web-0")
    written = [path for path in tmp_path.rglob("cgroup.procs") if path.read_text() == "7"]
    assert written == [tmp_path / where / "parent" / "_monitors" / "web-0" / "cgroup.procs"]


@pytest.mark.parametrize(
    ("hierarchy", "file"),
    [("memory", "memory.oom_control"), (".", "memory.events")],
    ids=["version 1", "version 2"],
)
@pytest.mark.parametrize("kills", [0, 2])
def test_kills_for_want_of_memory_in_both_versions(tmp_path: Path, hierarchy: str, file: str, kills: int) -> None:
    if hierarchy == ".":
        (tmp_path / "cgroup.controllers").touch()
    group = tmp_path / hierarchy / "parent" / "web-0"
    group.mkdir(parents=True)
    groups = Groups("/parent", tmp_path)
    assert not groups.out_of_memory("web-0")
    (group / file).write_text(f"under_oom 0\noom_kill {kills}\n")
    assert groups.out_of_memory("web-0") == bool(kills)


def test_members_of_groups_inside_count_and_links_of_hierarchies_do_not(tmp_path: Path) -> None:
    for folder in ("cpu,cpuacct/parent/web-0", "pids/parent/web-0/inner", "pids/parent/web-1"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "cgroup.procs").write_text(f"{os.getpid()}\n{2**22 + 1}\n")
    (tmp_path / "cpu").symlink_to("cpu,cpuacct")
    assert Groups("/parent", tmp_path).members("web-0") == [Process.find(os.getpid())]


# ---- trees


def test_a_tree_goes_whatever_a_container_made_of_it(tmp_path: Path) -> None:
    tree, outside = tmp_path / ("d" * 100), tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    inner = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1100):  # deeper than a path may be long, and than Python may recurse
        os.mkdir("d" * 100, dir_fd=inner)
        inner = _entered(inner, "d" * 100)
    os.symlink(outside, "link", dir_fd=inner)
    os.close(inner)
    (tree / os.fsdecode(b"moved-1 \xff\n")).mkdir()
    (tree / "link").symlink_to(outside)
    (tree / "moved-2").write_text("a name of our own")
    remove_tree(tree)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside"]
    assert (outside / "kept").read_text() == "kept"
    remove_tree(tree)


def _entered(folder: int, name: str) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
    finally:
        os.close(folder)


@pytest.mark.root
def test_immutable_files_and_folders_go(tmp_path: Path) -> None:
    folder = tmp_path / "tree" / "folder"
    folder.mkdir(parents=True)
    (folder / "file").touch()
    (folder / "inner").mkdir()
    for path in (folder / "file", folder / "inner", folder):
        if subprocess.run(["chattr", "+i", path], capture_output=True, check=False).returncode:
            pytest.skip("this file system has no such flag")
    remove_tree(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []
