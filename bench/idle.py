"""A node that has nothing to do: its memory, its time on a processor and how often it wakes, with 0 and 20 containers.

Ours is the server with all processes that it keeps, and the monitors of the containers; docker's are dockerd,
containerd and the shims; podman has no daemon, so its are the monitors. The containers' own processes count for nobody.
They sleep. Ours also have a script that is asked whether they are ready, as every image of the catalogue has; the
peers' have none, so they do less. That script is asked ever less often; so with containers we wait until it is asked
every five minutes, and look at five. All stand at once, and are looked at over the same time.

``BENCH_IDLE_SECONDS`` is for how long to look, with containers, instead of 300.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack

import attrs
from contenders import Client
from disk import fresh_disk
from node import Layout, TestNode, making_node
from peers import Peer, docker, podman
from processes import Cost, cost_of, descendants, everyone, name_of, pss_megabytes, words_of
from report import report

IMAGE, CONTAINERS = "sleeper", 20
SECONDS = float(os.environ.get("BENCH_IDLE_SECONDS", "300"))
SECONDS_OF_NONE = min(60.0, SECONDS)
_DAEMONS = ("dockerd", "containerd", "containerd-shim", "docker-proxy", "conmon")


@attrs.frozen
class Idle:
    """Of one contender: processes while it had nothing to do."""

    megabytes: float
    cpu_percent: float
    """Of one core."""
    wakes: float
    """A second."""


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("the measure idle needs root: it makes containers")
    with fresh_disk() as disk, ExitStack() as stack:
        layout = Layout(disk / "layout")
        _add_image(layout)
        node = stack.enter_context(making_node(disk / "n"))
        node.layout.reload()
        _add_image(node.layout)
        peers = {start.__name__: stack.enter_context(start(disk / start.__name__)) for start in (docker, podman)}
        for peer in peers.values():
            peer.load(layout.folder, IMAGE)
        processes = {"nanocloud": lambda: _ours(node), **{n: lambda p=p: _theirs(p) for n, p in peers.items()}}
        none = _look(processes, settle=10, seconds=SECONDS_OF_NONE)
        _start(node, peers)
        some = _look(processes, settle=SECONDS * 1.8, seconds=SECONDS)  # 2 + 4 + ... + 256 of 300
    _report("memory", "MB", none, some, lambda idle: idle.megabytes)
    _report("cpu", "% of a core", none, some, lambda idle: idle.cpu_percent)
    _report("wakes", "1/s", none, some, lambda idle: idle.wakes)
    grown = {name: [(some[name].megabytes - none[name].megabytes) / CONTAINERS] for name in some}
    report("idle.memory-each", "MB", ours=grown.pop("nanocloud"), peers=grown)


def _add_image(layout: Layout) -> None:
    ready = {"/usr/lib/nanocloud/ready.sh": "#!/bin/sh\ntest -e /bin/sh\n"}
    labels = {"io.nanocloud.options": {}}
    layout.add(IMAGE, command=["/bin/sleep", "1000000"], files=ready, labels=labels)


def _start(node: TestNode, peers: Mapping[str, Peer]) -> None:
    client = Client(node, IMAGE)
    for number in range(CONTAINERS):
        client.begin(number)
        for peer in peers.values():
            peer.run("run", "-d", *peer.run_options, f"--name=c{number}", IMAGE)
    for number in range(CONTAINERS):
        node.until_settled(f"c{number}")


def _ours(node: TestNode) -> list[int]:
    assert node.server is not None
    folder = f"{node.run_dir}/"
    monitors = [
        pid for pid in everyone() if name_of(pid) == "conmon" and any(word.startswith(folder) for word in words_of(pid))
    ]
    return [*descendants(node.server.pid, not_below="conmon"), *monitors]


def _theirs(peer: Peer) -> list[int]:
    return [pid for pid in peer.inside.pids() if name_of(pid) in _DAEMONS]


def _look(processes: Mapping[str, Callable[[], list[int]]], *, settle: float, seconds: float) -> dict[str, Idle]:
    time.sleep(settle)
    before = {name: cost_of(pids()) for name, pids in processes.items()}
    time.sleep(seconds)
    found = {}
    for name, pids in processes.items():
        cost: Cost = cost_of(pids()) - before[name]
        found[name] = Idle(pss_megabytes(pids()), 100 * cost.cpu_seconds / seconds, cost.wakes / seconds)
    return found


def _report(
    what: str, unit: str, none: Mapping[str, Idle], some: Mapping[str, Idle], value: Callable[[Idle], float]
) -> None:
    for number, idles in ((0, none), (CONTAINERS, some)):
        found = {name: [value(idle)] for name, idle in idles.items() if number or name != "podman"}
        report(f"idle.{what}-{number}", unit, ours=found.pop("nanocloud"), peers=found)


if __name__ == "__main__":
    main()
