"""Commands that only look: the state of five services, and what a program says of itself.

``nanocloud status`` beside ``kubectl get pods`` of the same server, whose discovery it has in its cache, beside
``docker ps`` and ``podman ps`` of five containers; and ``--help`` of each. A command is timed from its start to its
end; podman's is started in other namespaces, which takes a millisecond. kubectl is not installed for this: it is the
one of the machine, and left out where there is none.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from functools import partial

from contenders import contenders
from disk import fresh_disk
from node import NANOCLOUD, TestNode, default_environment
from peers import missing
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
            "nanocloud status": partial(_inside, ours.node, [str(NANOCLOUD), "status"], mine),
            "nanocloud --help": partial(_inside, ours.node, [str(NANOCLOUD), "--help"], mine),
        }
        if not missing("kubectl"):
            for words in (("get", "pods"), ("--help",)):
                ways[" ".join(("kubectl", *words))] = partial(_inside, ours.node, ["kubectl", *words], kubectl)
        for one in theirs:
            for words in ("ps", "--help"):
                ways[f"{one.name} {words}"] = partial(
                    _timed, one.peer.command(words), os.environ | one.peer.environment
                )
        samples = interleave(ways, ROUNDS, warm_up=2)
    for name, words in (("cli.status", "status"), ("cli.help", "--help")):
        mine_too = samples.pop(f"nanocloud {words}")
        peers = {peer: found for peer, found in samples.items() if peer.endswith("--help") == (words == "--help")}
        report(name, "ms", ours=mine_too, peers=peers)


def _environments(node: TestNode) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Ours as on a node with the default configuration; kubectl's with the file that ``nanocloud config`` installs."""
    file = node.home / "kubeconfig"
    node.run("sh", stdin=node.cli("config").stdout, environment={"KUBECONFIG": str(file)})
    return default_environment(node), node.environment | {"KUBECONFIG": str(file)}


def _inside(node: TestNode, command: list[str], environment: Mapping[str, str]) -> float:
    with node.entered():
        return _timed(command, environment)


def _timed(command: list[str], environment: Mapping[str, str]) -> float:
    return milliseconds_of(partial(_run, command, environment))


def _run(command: list[str], environment: Mapping[str, str]) -> None:
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stderr.decode()}")


if __name__ == "__main__":
    main()
