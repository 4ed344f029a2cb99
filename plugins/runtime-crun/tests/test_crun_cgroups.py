"""The layouts of control groups that hosts have, and what limits become in them."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nanocloud.errors import ProviderError
from nanocloud.providers.runtime import (
    Resources,
)
from nanocloud_runtime_crun.cgroups import Cgroups, oci_resources, own_groups, probe


def _tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V1 = {"memory/cgroup.procs": "", "cpu,cpuacct/cgroup.procs": "", "pids/cgroup.procs": "", "systemd/cgroup.procs": ""}


def test_version_2_is_one_hierarchy(tmp_path: Path) -> None:
    layout = probe(_tree(tmp_path, {"cgroup.controllers": "cpu memory pids\n"}))
    assert (layout.name, layout.hierarchies, layout.hide) == ("v2", ("",), None)


def test_version_1_has_a_hierarchy_a_controller(tmp_path: Path) -> None:
    _tree(tmp_path, V1)
    (tmp_path / "cpu").symlink_to("cpu,cpuacct")
    layout = probe(tmp_path)
    assert (layout.name, layout.hierarchies) == ("v1", ("cpu,cpuacct", "memory", "pids", "systemd"))


@pytest.mark.parametrize(("controllers", "hidden"), [("", False), ("hugetlb\n", True)])
def test_hybrid_is_hidden_where_version_2_owns_controllers(tmp_path: Path, controllers: str, hidden: bool) -> None:
    layout = probe(_tree(tmp_path, V1 | {"unified/cgroup.controllers": controllers, "unified/cgroup.procs": ""}))
    assert (layout.name, layout.unified) == ("hybrid", tmp_path / "unified")
    assert layout.hide == (tmp_path / "unified" if hidden else None)
    assert "unified" not in layout.hierarchies


def test_host_without_cgroups_is_refused(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ProviderError, match="memory controller"):
            probe(root)


def test_own_groups_are_read_by_controller() -> None:
    text = "9:name=systemd:/system.slice/x\n4:cpu,cpuacct:/a\n0::/init.scope\n"
    assert own_groups(text) == {"systemd": "/system.slice/x", "cpu": "/a", "cpuacct": "/a", "": "/init.scope"}


def test_limits_become_the_kernels_units(tmp_path: Path) -> None:
    layout = probe(_tree(tmp_path, V1))
    given = Resources(memory_bytes=1 << 26, cpu_millicores=1500, pids=7)
    limits = oci_resources(layout, given, all_devices=False, can_filter_devices=True)
    assert limits["memory"] == {"limit": 1 << 26}
    assert limits["cpu"] == {"quota": 150_000, "period": 100_000, "shares": 1536}
    assert limits["pids"] == {"limit": 7}
    assert limits["devices"][0] == {"allow": False, "access": "rwm"}
    unlimited = oci_resources(layout, Resources(pids=None), all_devices=False, can_filter_devices=False)
    assert unlimited == {}


def test_swap_is_limited_where_the_kernel_counts_it(tmp_path: Path) -> None:
    layout = probe(_tree(tmp_path, V1 | {"memory/memory.memsw.limit_in_bytes": ""}))
    limits = oci_resources(layout, Resources(memory_bytes=1 << 26), all_devices=True, can_filter_devices=True)
    assert limits["memory"] == {"limit": 1 << 26, "swap": 1 << 26}
    assert limits["devices"] == [{"allow": True, "access": "rwm"}]


def test_tiny_share_of_a_processor_is_what_the_kernel_takes(tmp_path: Path) -> None:
    layout = probe(_tree(tmp_path, V1))
    limits = oci_resources(layout, Resources(cpu_millicores=1), all_devices=False, can_filter_devices=False)
    assert limits["cpu"] == {"quota": 1000, "period": 100_000, "shares": 2}


@pytest.mark.parametrize(
    ("file", "text", "killed"),
    [
        ("memory.events", "low 0\noom 3\noom_kill 1\n", True),
        ("memory.events", "low 0\noom_kill 0\n", False),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", True),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n", False),
    ],
)
def test_lack_of_memory_is_read_from_the_kernels_counter(tmp_path: Path, file: str, text: str, killed: bool) -> None:
    root = _tree(tmp_path, V1 | {f"memory/nanocloud/c/{file}": text})
    assert Cgroups(probe(root), "/nanocloud").out_of_memory("c") is killed
    assert Cgroups(probe(root), "/nanocloud").out_of_memory("d") is False


def test_members_are_read_from_any_hierarchy(tmp_path: Path) -> None:
    root = _tree(tmp_path, V1 | {"pids/nanocloud/c/cgroup.procs": "12\n34\n"})
    assert Cgroups(probe(root), "/nanocloud").members("c") == [12, 34]
    assert Cgroups(probe(root), "/nanocloud").members("d") == []


@pytest.fixture
def groups() -> Iterator[Cgroups]:
    made = Cgroups(probe(), f"/nanocloud-test-{os.getpid()}")
    yield made
    made.remove("c")
    made.remove_parent()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or not Path("/sys/fs/cgroup/pids").is_dir(), reason="needs root and version 1")
def test_a_monitor_is_born_in_its_group_and_the_server_stays_out_of_it(groups: Cgroups) -> None:
    before, seen = Path("/proc/self/cgroup").read_text(), []

    def start() -> None:
        with groups.as_monitor("c"):
            seen.append(groups.makers("c"))
            child = subprocess.Popen(["sleep", "infinity"])
        seen.append(groups.makers("c"))
        seen.append(Path("/proc/thread-self/cgroup").read_text())
        child.kill()
        child.wait()
        seen.append([child.pid])

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    while_starting, started, of_thread, child = seen
    assert while_starting == []  # not this process, though a thread of it is there
    assert started == child
    assert of_thread == before
    assert groups.makers("c") == []
