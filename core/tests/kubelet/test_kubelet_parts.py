"""Small parts of the kubelet: back-off, users of images, names, statuses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from nanocloud.errors import InvalidError
from nanocloud.kubelet.backoff import Backoff
from nanocloud.kubelet.names import NameTable
from nanocloud.kubelet.status import ContainerObservation, PodObservation, pod_status, remember
from nanocloud.kubelet.users import numeric_user, own_fresh_volume
from nanocloud.providers.runtime import ContainerId, ExitStatus

# ---- back-off --------------------------------------------------------------------------------------------------------


async def test_the_first_failure_is_tried_again_at_once_and_later_ones_ever_later() -> None:
    backoff = Backoff()
    assert [backoff.next() for _ in range(9)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]


async def test_a_good_while_forgets_the_failures(autojump_clock: MockClock) -> None:
    backoff = Backoff()
    for wait in (0, 0, 599, 601):
        backoff.begin()
        await trio.sleep(wait)
        delay = backoff.next()
    assert delay == 0


# ---- users -----------------------------------------------------------------------------------------------------------

PASSWD = """root:x:0:0:root:/root:/bin/sh
mysql:x:999:998::/var/lib/mysql:/bin/false
1000:x:1234:1234::/:/bin/sh
broken:x:nine:9::/:/bin/sh
half:x:7:many::/:/bin/sh
short:x:8
huge:x:99999999999:9::/:/bin/sh
"""
GROUP = "root:x:0:\nmysql:x:998:\nssl:x:777:mysql\nodd:x:many:\n"


def layer(folder: Path, passwd: str | None = PASSWD, group: str = GROUP) -> Path:
    (folder / "etc").mkdir(parents=True)
    if passwd is not None:
        (folder / "etc" / "passwd").write_text(passwd)
        (folder / "etc" / "group").write_text(group)
    return folder


@pytest.mark.parametrize(
    ("user", "ids"),
    [
        ("", (0, 0)),
        ("root", (0, 0)),
        ("mysql", (999, 998)),
        ("999", (999, 998)),
        ("mysql:ssl", (999, 777)),
        ("mysql:5", (999, 5)),
        ("4000", (4000, 0)),
        ("4000:ssl", (4000, 777)),
        (":ssl", (0, 777)),
        ("1000", (1234, 1234)),
    ],
)
def test_the_user_of_an_image_as_numbers(tmp_path: Path, user: str, ids: tuple[int, int]) -> None:
    assert numeric_user(user, [layer(tmp_path / "1")]) == ids


@pytest.mark.parametrize(
    ("user", "told"),
    [
        ("nobody", "no user 'nobody' in /etc/passwd"),
        ("mysql:nobody", "no group 'nobody' in /etc/group"),
        ("broken", "no user 'broken'"),
        ("half", "no user 'half'"),
        ("short", "no user 'short'"),
        ("mysql:odd", "no group 'odd'"),
        ("huge", "the last number is 4294967294"),
        ("4294967295", "the last number is 4294967294"),
        ("9" * 5000, "the last number is 4294967294"),
        ("0:" + "9" * 5000, "the last number is 4294967294"),
    ],
)
def test_a_user_that_cannot_be_is_told(tmp_path: Path, user: str, told: str) -> None:
    with pytest.raises(InvalidError, match=told) as caught:
        numeric_user(user, [layer(tmp_path / "1")])
    assert len(str(caught.value)) < 200


def test_the_topmost_layer_that_has_the_file_counts(tmp_path: Path) -> None:
    layers = [layer(tmp_path / "1"), layer(tmp_path / "2", "mysql:x:5:6::/:/x\n"), layer(tmp_path / "3", None)]
    assert numeric_user("mysql", layers) == (5, 6)


def test_links_and_devices_of_an_image_are_not_followed(tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    (linked / "etc").mkdir(parents=True)
    (linked / "etc" / "passwd").symlink_to("/etc/passwd")
    (linked / "etc" / "group").symlink_to("/etc/group")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "etc").symlink_to("/etc")
    fifo = tmp_path / "fifo"
    (fifo / "etc").mkdir(parents=True)
    os.mkfifo(fifo / "etc" / "passwd")
    for hostile in (linked, folder, fifo, tmp_path / "missing"):
        with pytest.raises(InvalidError, match="has no user 'root'"):
            numeric_user("root", [hostile])


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="gives folders away")
def test_a_fresh_volume_is_given_to_the_user_once(tmp_path: Path) -> None:
    own_fresh_volume(tmp_path, 999, 998)
    assert (tmp_path.stat().st_uid, tmp_path.stat().st_gid) == (999, 998)
    own_fresh_volume(tmp_path, 5, 5)
    assert tmp_path.stat().st_uid == 999
    used = tmp_path / "used"
    used.mkdir()
    (used / "data").touch()
    own_fresh_volume(used, 999, 998)
    assert used.stat().st_uid == 0


# ---- names -----------------------------------------------------------------------------------------------------------


def named_pod(bundle: str, namespace: str, *addresses: str, deleting: bool = False) -> dict[str, Any]:
    made: dict[str, Any] = {
        "metadata": {
            "name": f"{bundle}-0",
            "namespace": namespace,
            "uid": f"{namespace}/{bundle}",
            "labels": {"nanocloud.io/bundle": bundle},
        },
        "status": {"podIPs": [{"ip": address} for address in addresses]},
    }
    if deleting:
        made["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return made


def test_names_lead_to_pods_and_default_wins_the_short_one() -> None:
    pods = [
        named_pod("web", "apps", "10.0.0.3"),
        named_pod("web", "default", "10.0.0.2", "fd00::2"),
        named_pod("db", "zoo", "10.0.0.5"),
        named_pod("db", "apps", "10.0.0.4"),
        named_pod("old", "default", "10.0.0.9", deleting=True),
        named_pod("new", "default"),
        {
            "metadata": {"name": "stray", "namespace": "default", "uid": "stray"},
            "status": {"podIPs": [{"ip": "10.0.0.8"}]},
        },
    ]
    table = NameTable()
    assert [table.put(pod) for pod in pods] == [True, True, True, True, False, False, False]
    assert shown(table) == {
        "web.default.svc": ["10.0.0.2", "fd00::2"],
        "web.nanocloud.local": ["10.0.0.2", "fd00::2"],
        "web.apps.svc": ["10.0.0.3"],
        "db.apps.svc": ["10.0.0.4"],
        "db.nanocloud.local": ["10.0.0.4"],
        "db.zoo.svc": ["10.0.0.5"],
    }


def shown(table: NameTable) -> dict[str, list[str]]:
    return {name: [str(address) for address in found] for name, found in table.names.items()}


def test_names_follow_their_pods() -> None:
    table = NameTable()
    first, second = named_pod("web", "zoo", "10.0.0.1"), named_pod("web", "apps", "10.0.0.2")
    assert table.put(first)
    assert table.put(second)
    assert shown(table)["web.nanocloud.local"] == ["10.0.0.2"]
    assert not table.put(second | {"status": {**second["status"], "phase": "Running"}})
    assert table.put(named_pod("web", "apps", "10.0.0.3"))
    assert shown(table)["web.apps.svc"] == shown(table)["web.nanocloud.local"] == ["10.0.0.3"]
    assert table.put(named_pod("web", "apps", "10.0.0.3", deleting=True))
    assert not table.drop("apps/web")
    assert shown(table) == {"web.zoo.svc": ["10.0.0.1"], "web.nanocloud.local": ["10.0.0.1"]}
    assert table.drop("zoo/web")
    assert shown(table) == {}


def test_a_pod_that_replaces_another_shares_its_name_until_that_is_gone() -> None:
    table = NameTable()
    before, after = named_pod("web", "default", "10.0.0.1"), named_pod("web", "default", "10.0.0.2")
    after["metadata"]["uid"] = "another"
    table.put(before)
    table.put(after)
    assert shown(table)["web.default.svc"] == ["10.0.0.1", "10.0.0.2"]
    table.drop("default/web")
    assert shown(table)["web.default.svc"] == shown(table)["web.nanocloud.local"] == ["10.0.0.2"]


# ---- status ----------------------------------------------------------------------------------------------------------


def observed(**fields: Any) -> ContainerObservation:
    return ContainerObservation("web", "web:1", **fields)


def test_a_pod_is_ready_when_all_its_containers_are() -> None:
    ready = observed(started_at=100.0, ready=True)
    late = observed(started_at=100.0)
    both = PodObservation([ready, late])
    conditions = {c["type"]: c for c in pod_status({}, both, now=200)["conditions"]}
    assert conditions["Ready"]["status"] == "False"
    assert conditions["Ready"]["message"] == "containers with unready status: [web]"
    late.ready = True
    conditions = {c["type"]: c["status"] for c in pod_status({}, both, now=200)["conditions"]}
    assert set(conditions.values()) == {"True"}


def test_a_condition_keeps_the_time_of_its_last_change() -> None:
    seen = observed(started_at=100.0, ready=True)
    first = {"status": pod_status({}, PodObservation([seen]), now=100)}
    second = {"status": pod_status(first, PodObservation([seen]), now=200)}
    assert second == first
    seen.ready = False
    third = {
        c["type"]: c["lastTransitionTime"] for c in pod_status(second, PodObservation([seen]), now=300)["conditions"]
    }
    assert third["Initialized"] != third["Ready"] == "1970-01-01T00:05:00Z"


def test_phase_follows_the_containers() -> None:
    def phase(**fields: Any) -> str:
        text: str = pod_status({}, PodObservation([observed(**fields)]), now=0)["phase"]
        return text

    assert phase() == "Pending"
    assert phase(started_at=1.0) == "Running"
    assert phase(restart_count=1) == "Running"


@pytest.mark.parametrize(
    ("ended", "reason"),
    [
        (ExitStatus(code=0, finished_at=160.0), "Completed"),
        (ExitStatus(code=3, finished_at=160.0), "Error"),
        (ExitStatus(code=137, finished_at=160.0, out_of_memory=True), "OOMKilled"),
    ],
)
def test_how_a_container_ended_is_shown_and_remembered(ended: ExitStatus, reason: str) -> None:
    seen = observed(
        container=ContainerId("c.0.1"),
        restart_count=1,
        last_exit=ended,
        last_started_at=100.0,
        last_words="cannot open /data",
        waiting=("CrashLoopBackOff", "soon"),
    )
    (status,) = pod_status({}, PodObservation([seen]), now=200)["containerStatuses"]
    assert status["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "soon"}}
    assert status["lastState"]["terminated"]["reason"] == reason
    later = observed()
    remember(later, status)
    assert (later.restart_count, later.last_exit, later.last_started_at) == (1, ended, 100.0)
    assert later.last_words == "cannot open /data"
