"""A pod's network: a namespace with an address on a bridge, and a port of the host that leads there; and back.

Ours is the provider of nanocloud-cni-bridge as the node calls it: records that survive a crash, IPv4 and IPv6, rules
by ``nft``, a name server that knows of the pod. The peer are the CNI plugins ``bridge``, ``host-local`` and
``portmap``, run one after the other as container runtimes run them, with a namespace that ``ip netns`` makes. By hand
there is no port and no record. One process asks all of them in turn, in an enclosure with a bridge for each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio
from by_hand import connect, disconnect, make_bridge
from enclosure import enclosure
from report import report

from nanocloud.providers.network import PortMapping, SandboxId, SandboxNetworkSpec
from nanocloud_cni_bridge.config import BridgeConfig
from nanocloud_cni_bridge.network import BridgeNetwork

ROUNDS = 20
_WARM_UP = 2
_PLUGINS = "/usr/lib/cni"
_FIRST_PORT = 20000
Took = tuple[float, float]
"""Milliseconds of the way there and of the way back."""


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("the measure network needs root: it makes network namespaces")
    rounds = int(os.environ.get("BENCH_ROUNDS", ROUNDS))
    with tempfile.TemporaryDirectory(prefix="ncbench-") as folder, enclosure() as inside:
        command = inside.command(sys.executable, __file__, folder, str(rounds))
        samples: dict[str, list[Took]] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    for index, name in enumerate(("attach", "detach")):
        taken = {who: [took[index] for took in all_of_them] for who, all_of_them in samples.items()}
        peers, floor = {"CNI plugins": taken["CNI plugins"]}, taken["by hand"]
        report(f"network.{name}", "ms", ours=taken["ours"], peers=peers, floor=floor, floor_name="by hand")


# ---- in the enclosure ------------------------------------------------------------------------------------------------


async def measured(folder: Path, rounds: int) -> Mapping[str, list[Took]]:
    samples: dict[str, list[Took]] = {"ours": [], "CNI plugins": [], "by hand": []}
    make_bridge()
    async with BridgeNetwork(BridgeConfig(), state_dir=folder / "state", run_dir=folder / "run") as network:
        for number in range(-_WARM_UP, rounds):
            turn = number % len(samples)
            own = number + _WARM_UP + 1
            for name in [*samples, *samples][turn : turn + len(samples)]:
                if name == "ours":
                    took = await _ours(network, own)
                else:
                    took = _by_plugins(folder, own) if name == "CNI plugins" else _by_hand(own)
                if number >= 0:
                    samples[name].append(took)
    return samples


async def _ours(network: BridgeNetwork, number: int) -> Took:
    ports = (PortMapping(host_port=_port(number), container_port=80),)
    spec = SandboxNetworkSpec(sandbox=SandboxId(f"s{number}"), owner=f"default/p{number}", ports=ports)
    began = time.perf_counter()
    await network.attach(spec)
    attached = time.perf_counter()
    await network.detach(spec.sandbox)
    await network.release(spec.owner)
    return (attached - began) * 1000, (time.perf_counter() - attached) * 1000


def _by_plugins(folder: Path, number: int) -> Took:
    name = f"n{number}"
    ipam = {
        "type": "host-local",
        "dataDir": str(folder / "ipam"),
        "ranges": [[{"subnet": "10.89.0.0/16"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True, "hairpinMode": True, "ipam": ipam}
    mapping = {"hostPort": _port(number), "containerPort": 80, "protocol": "tcp"}
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}, "runtimeConfig": {"portMappings": [mapping]}}
    began = time.perf_counter()
    subprocess.run(["ip", "netns", "add", name], check=True)
    made = _plugin("ADD", name, bridge)
    made = _plugin("ADD", name, portmap | {"prevResult": made})
    attached = time.perf_counter()
    _plugin("DEL", name, portmap | {"prevResult": made})
    _plugin("DEL", name, bridge)
    subprocess.run(["ip", "netns", "del", name], check=True)
    return (attached - began) * 1000, (time.perf_counter() - attached) * 1000


def _plugin(command: str, name: str, config: Mapping[str, Any]) -> Any:
    """Run a plugin as a container runtime does. Source: CNI specification 1.0.0, section 2."""
    environment = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": name,
        "CNI_NETNS": f"/run/netns/{name}",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": _PLUGINS,
        "PATH": os.environ["PATH"],
    }
    asked = json.dumps({"cniVersion": "1.0.0", "name": "bench"} | dict(config))
    program = f"{_PLUGINS}/{config['type']}"
    done = subprocess.run([program], input=asked, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{config['type']} {command}: {done.stdout}")
    return json.loads(done.stdout) if done.stdout else None


def _by_hand(number: int) -> Took:
    began = time.perf_counter()
    connect(number)
    attached = time.perf_counter()
    disconnect(number)
    return (attached - began) * 1000, (time.perf_counter() - attached) * 1000


def _port(number: int) -> int:
    return _FIRST_PORT + number


if __name__ == "__main__":
    print(json.dumps(trio.run(measured, Path(sys.argv[1]), int(sys.argv[2]))))
