"""The harness of the measures: what it says of samples, what it keeps, and that peers leave nothing behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

from enclosure import enclosure
from page import BEGIN, END, PAGE, page, result_files
from report import recording, report
from rounds import interleave
from run import MEASURES, run

FACTS = {
    "date": "2026-01-02",
    "commit": "abc",
    "kernel": "6",
    "cores": 2,
    "processor": "p",
    "memory_gib": 1,
    "system": "s",
    "python": "3",
    "versions": {},
    "load": [0.5, 0, 0],
}


def test_the_best_peer_of_times_is_the_fastest() -> None:
    said = report("start", "ms", ours=[3, 1, 2], peers={"slow": [9.0], "fast": [4.0]}, floor=[1.0])
    assert (said["ours"], said["peer"], said["peer_name"]) == (2, 4, "fast")
    assert (said["ratio"], said["floor_ratio"]) == (0.5, 2)
    assert (said["rounds"], said["spread"]) == (3, [1, 3])


def test_the_best_peer_of_rates_is_the_one_that_does_most() -> None:
    said = report("gets", "1/s", ours=[200], peers={"slow": [50.0], "fast": [100.0]}, less_is_better=False)
    assert (said["peer_name"], said["ratio"], said["less_is_better"]) == ("fast", 2, False)
    assert said["peers"] == {"slow": 50, "fast": 100}


def test_a_measure_may_stand_alone() -> None:
    said = report("memory", "MB", ours=[1234.5678])
    assert (said["ours"], said["peer"], said["ratio"], said["floor"]) == (1235, None, None, None)


def test_results_are_appended_below_the_facts_of_their_run(tmp_path: Path) -> None:
    facts = {"date": "2026-01-02", "commit": "abc", "kernel": "6"}
    for value in (1, 2):
        with recording(tmp_path, facts) as file:
            report("x", "s", ours=[value])
    report("y", "s", ours=[3])  # of no run
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert file.name == "2026-01-02-abc.jsonl"
    assert [line.get("ours") or line["machine"] for line in lines] == [facts, 1, facts, 2]


def test_every_contender_has_its_turn_in_every_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_ROUNDS", raising=False)
    order: list[str] = []
    samples = interleave({name: lambda name=name: order.append(name) or len(order) for name in "abc"}, 3, warm_up=1)
    assert "".join(order) == "cab" + "abc" + "bca" + "cab"
    assert samples == {"a": [4, 9, 11], "b": [5, 7, 12], "c": [6, 8, 10]}


def test_rounds_can_be_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_ROUNDS", "1")
    assert interleave({"a": lambda: 1}, 20) == {"a": [1]}


def test_a_measure_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pull,nonsense"]) == 2
    assert f"no measure 'nonsense'; there are {', '.join(MEASURES)}" in capsys.readouterr().err


def test_every_measure_has_its_row() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \|.*\|.*\|.*\|$", (Path(__file__).parents[1] / "bench" / "README.md").read_text(), re.MULTILINE
    )
    assert rows == MEASURES


def test_the_page_of_numbers_shows_the_newest_results() -> None:
    assert PAGE.read_text() == page(PAGE.read_text(), result_files()), "make bench-page"


def test_only_the_drawn_part_of_the_page_changes(tmp_path: Path) -> None:
    with recording(tmp_path, FACTS) as file:
        report("pod.start", "ms", ours=[99], peers={"podman": [200.0]})
        report("pod.start", "ms", ours=[50], peers={"podman": [200.0]}, floor=[25.0], floor_name="by hand")
    made = page(f"before\n{BEGIN}\nold\n{END}\nafter\n", [file])
    assert made.startswith("before\n")
    assert made.endswith("after\n")
    assert "old" not in made
    assert "| **Nanocloud** | 50 | ███████▌ |" in made
    assert "0.25 of podman, 2.00 of the floor" in made
    assert "Nowhere among these measures." in made
    assert page(made, [file]) == made


def test_the_page_says_where_we_are_behind(tmp_path: Path) -> None:
    with recording(tmp_path, FACTS) as file:
        report("x.slow", "ms", ours=[3], peers={"peer": [2.0]})
        report("x.fast", "ms", ours=[1], peers={"peer": [2.0]})
        report("x.few", "1/s", ours=[1], peers={"peer": [2.0]}, less_is_better=False)
        report("x.many", "1/s", ours=[3], peers={"peer": [2.0]}, less_is_better=False)
    said = [line for line in page(f"{BEGIN}\n{END}", [file]).splitlines() if line.startswith("- x.")]
    assert said == ["- x.slow (`x.slow`): 1.50 of peer.", "- x.few (`x.few`): 0.50 of peer."]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and util-linux")
def test_nothing_of_an_enclosure_outlives_it(tmp_path: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text().count(str(tmp_path))
    with enclosure() as inside:
        made = f"mount -t tmpfs tmpfs {tmp_path}; touch {tmp_path}/hidden; ip link add nc-bench0 type bridge"
        left = "setsid sleep infinity >/dev/null 2>&1 & until grep -q sleep /proc/$!/comm; do :; done"
        subprocess.run(inside.command("sh", "-c", f"{made}; {left}"), check=True)
        pids = inside.pids()
        names = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in pids}
        assert names == {"sh", "sleep"}
        assert len(pids) == 3
        assert not (tmp_path / "hidden").exists()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not Path("/sys/class/net/nc-bench0").exists()
    assert Path("/proc/self/mountinfo").read_text().count(str(tmp_path)) == before
