"""Commands that only look: the state of five services, and what a program says of itself.

``nanocloud status`` beside ``kubectl get pods`` of the same server, whose discovery it has in its cache, beside
``docker ps`` and ``podman ps`` of five containers; and ``--help`` of each. A command is timed from its start to its
end. All but docker's, whose daemon is reached by a file, are started in other namespaces, which takes a millisecond.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial

from contenders import contenders
from disk import fresh_disk
from node import NANOCLOUD, TestNode
from report import report
from rounds import interleave, milliseconds_of

ROUNDS, SERVICES = 20, 5


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("the measure cli needs root: it makes containers")
    with fresh_disk() as disk, contenders(disk) as (ours, theirs, _, _):
        running = []
        for one in (ours, *theirs):
            for number in range(SERVICES):
                one.begin(number)
                running.append(one.bell.answer())
                one.begun(number)
        mine, kubectl = _environments(ours.node)
        ways = {
            "nanocloud status": partial(_run, ours.node.inside(NANOCLOUD, "status"), mine),
            "nanocloud --help": partial(_run, ours.node.inside(NANOCLOUD, "--help"), mine),
            "kubectl get pods": partial(_run, ours.node.inside("kubectl", "get", "pods"), kubectl),
            "kubectl --help": partial(_run, ours.node.inside("kubectl", "--help"), kubectl),
        }
        for one in theirs:
            for words in ("ps", "--help"):
                ways[f"{one.name} {words}"] = partial(_run, one.peer.command(words), os.environ | one.peer.environment)
        samples = interleave(_timed(ways), ROUNDS, warm_up=2)
    for name, words in (("cli.status", "status"), ("cli.help", "--help")):
        mine_too = samples.pop(f"nanocloud {words}")
        peers = {peer: found for peer, found in samples.items() if peer.endswith("--help") == (words == "--help")}
        report(name, "ms", ours=mine_too, peers=peers)


def _environments(node: TestNode) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Ours as on a node with the default configuration; kubectl's with the file that ``nanocloud config`` installs."""
    mine = {name: value for name, value in node.environment.items() if name != "NANOCLOUD_CONFIG"}
    file = node.home / "kubeconfig"
    node.run("sh", stdin=node.cli("config").stdout, environment={"KUBECONFIG": str(file)})
    return mine, node.environment | {"KUBECONFIG": str(file)}


def _timed(ways: Mapping[str, Callable[[], None]]) -> dict[str, Callable[[], float]]:
    return {name: partial(milliseconds_of, way) for name, way in ways.items()}


def _run(command: list[str], environment: Mapping[str, str]) -> None:
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr.decode()}")


if __name__ == "__main__":
    main()
