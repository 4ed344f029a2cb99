"""Opens the network, attaches and detaches without end, and dies where it is told to.

``crash_child.py FOLDER`` reads lines from its standard input; each makes a fresh child that the line describes:
``random`` (the reader kills it) or ``function when`` where ``function`` is a name of POINTS and ``when`` is ``before``
or ``after``. It prints the child's pid, then ``ready`` from the child once it works, then ``dead``.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import trio

from nanocloud.providers.network import PortMapping
from nanocloud.testkit.specs import sandbox_spec
from nanocloud_cni_bridge import links, netns, rules, veth
from nanocloud_cni_bridge.config import BridgeConfig
from nanocloud_cni_bridge.network import BridgeNetwork
from nanocloud_cni_bridge.records import RecordFolder

POINTS = {
    "pin": (netns, "pin"),
    "remove": (netns, "remove"),
    "create": (veth, "create"),
    "add_pair": (veth, "_add_pair"),
    "delete_link": (links, "delete_link"),
    "publish": (rules.Rules, "publish"),
    "withdraw": (rules.Rules, "withdraw"),
    "write": (RecordFolder, "write"),
    "remember": (RecordFolder, "touch"),
    "unrecord": (RecordFolder, "remove"),
    "prepare": (netns, "prepare"),
    "bridge": (links, "ensure_bridge"),
    "replace": (rules.Rules, "replace"),
    "run_nft": (rules, "run_nft"),
    "mount": (os, "close"),
}


def arm(point: str, when: str) -> None:
    owner, name = POINTS[point]
    original = getattr(owner, name)

    def deadly(*args: object, **kwargs: object) -> object:
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)


async def work(folder: Path, line: str) -> None:
    early = line.split()[0] in ("prepare", "bridge", "replace")
    if early:
        arm(*line.split())
    network = BridgeNetwork(BridgeConfig(), state_dir=folder / "state", run_dir=folder / "run")
    async with network:
        if line != "random":
            arm(*line.split())
        print("ready", flush=True)

        async def churn(number: int) -> None:
            ports = [PortMapping(host_port=9000 + number, container_port=80)] if number % 2 else []
            spec = sandbox_spec(f"crash-{number}", *ports)
            while True:
                await network.attach(spec)
                await network.detach(spec.sandbox)

        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(churn, number)


def main() -> None:
    folder = Path(sys.argv[1])
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            trio.run(work, folder, line.strip())
            os._exit(1)
        print(pid, flush=True)
        os.waitpid(pid, 0)
        print("dead", flush=True)


main()
