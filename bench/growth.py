"""The control plane with 10, 100 and 1,000 services: what one costs must not depend on how many there are.

The server is a process with its real keyspace, API, controllers and kubelet; only containers, networks, volumes, images
and binding commands are fakes (``fakes.py``). Of ten services one is a store, and nine are applications that select it,
each with an account made by a binding; every one has a volume and secrets. They are created one after the other by one
client, and installed as fast as the server can.

    growth.install-<n>     time on a processor for a service, from its creation until all are ready
    growth.one-more-<n>    from the creation of one more until it is ready, and ...
    growth.remove-<n>      ... from its deletion until it is gone
    growth.memory-<n>      of the server, for a service, once it is idle
    growth.list-<n>        ``GET`` of all bundles, for a service
    growth.plan-<n>        a dry run of one more
    growth.status-<n>      the command ``nanocloud status``
    growth.start-<n>       time on a processor until a server that starts after the machine did has all running

    growth.real-install-<n>  as install, with real containers, networks, volumes, and the host's commands for them
    growth.real-memory-<n>   as memory, without the containers' monitors

The floor is the same with 10: ``floor_ratio`` says how it grows. The start is told as a whole, for most of a small one
is the server itself. ``BENCH_GROWTH`` and ``BENCH_REAL_GROWTH`` give other numbers of services.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from disk import CACHE, fresh_disk, remove
from node import NANOCLOUD, TestNode, is_ready, making_node
from processes import cost_of, descendants, pss_megabytes
from report import report
from rounds import milliseconds_of

from nanocloud.client.api import bundles_path
from nanocloud.testkit.plugins import PluginSite

SIZES, REAL_SIZES = (
    [int(size) for size in os.environ.get(name, usual).split(",")]
    for name, usual in (("BENCH_GROWTH", "10,100,1000"), ("BENCH_REAL_GROWTH", "10,100"))
)
ROUNDS, LIMIT_SECONDS = 5, 1200.0
_GROUP = 10
_REAL = ("runtime-crun", "cni-bridge", "csi-loop", "dockyard")
_CONFIG = f"""
[node]
runtime = "fake"
network = "fake"
volume = "fake"
binding = "fake"
disable_plugins = {list(_REAL)}
"""
_Changes = Generator[tuple[str, dict[str, Any]], None, None]
_UNITS = {
    "install": "ms of processor",
    "one-more": "ms",
    "remove": "ms",
    "memory": "kB",
    "list": "us",
    "plan": "ms",
    "status": "ms",
    "start": "s of processor",
    "real-install": "ms of processor",
    "real-memory": "kB",
}


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("the measure growth needs root: the server does")
    _measure(SIZES, _with_fakes)
    _measure(REAL_SIZES, _with_containers)


def _measure(sizes: Sequence[int], grow: Callable[[int], dict[str, list[float]]]) -> None:
    floor: dict[str, list[float]] = {}
    for size in sizes:
        found = grow(size)
        floor = floor or found
        for what, samples in found.items():
            below = floor[what] if size != sizes[0] and what != "start" else ()
            report(f"growth.{what}-{size}", _UNITS[what], ours=samples, floor=below, floor_name=f"with {sizes[0]}")


def _with_fakes(size: int) -> dict[str, list[float]]:
    with _node() as node:
        return _Growth(node, size).run()


def _with_containers(size: int) -> dict[str, list[float]]:
    with fresh_disk(gigabytes=8) as disk, making_node(disk / "n") as node:
        growth = _Growth(node, size)
        names = [f"db-{number}" for number in range(size)]
        install, memory = growth.install(names, ["tinydb"] * size)
        return {"real-install": install, "real-memory": memory}


@contextmanager
def _node() -> Iterator[TestNode]:
    folder = CACHE / "growth"
    shutil.rmtree(folder, ignore_errors=True)
    site = PluginSite(folder / "site")
    site.folder.mkdir(parents=True)
    site.install("nanocloud-bench-fakes", "fakes", (Path(__file__).parent / "fakes.py").read_text())
    environment = {"PYTHONPATH": str(site.folder), "NANOCLOUD_LISTEN": "127.0.0.1:6443"}
    with making_node(folder / "n", config=_CONFIG, environment=environment) as node:
        yield node
    remove(folder)


class _Growth:
    """One server, filled with ``size`` services."""

    def __init__(self, node: TestNode, size: int) -> None:
        self._node, self._size = node, size
        with node.entered():
            self._api = node.api()
            self._api.request("GET", bundles_path("default"))

    def run(self) -> dict[str, list[float]]:
        names, services = [], []
        for number in range(self._size):
            group, position = divmod(number, _GROUP)
            names.append(f"a{group}-{position}" if position else f"store-{group}")
            services.append(f"app-{group}" if position else "store")
        found = {}
        found["install"], found["memory"] = self.install(names, services)
        found["one-more"], found["remove"] = self._one_more()
        path = bundles_path("default")
        asked = [milliseconds_of(lambda: self._api.content("GET", path)) for _ in range(ROUNDS)]
        found["list"] = [ms * 1000 / self._size for ms in asked]
        plan = {"spec": {"service": "store"}}
        found["plan"] = [milliseconds_of(lambda: self._plan(plan)) for _ in range(ROUNDS)]
        command = self._node.inside(NANOCLOUD, "status")
        found["status"] = [milliseconds_of(lambda: self._command(command)) for _ in range(ROUNDS)]
        found["start"] = [self._restart()]
        return found

    def install(self, names: Sequence[str], services: Sequence[str]) -> tuple[list[float], list[float]]:
        """Processor time and memory of each."""
        memory, began = pss_megabytes(self._processes()), cost_of(self._processes())
        for name, service in zip(names, services, strict=True):
            self._create(name, service)
        self._wait(set(names))
        cost = cost_of(self._processes()) - began
        self._idle()
        grown = pss_megabytes(self._processes()) - memory
        return [cost.cpu_seconds * 1000 / self._size], [grown * 1024 / self._size]

    def _one_more(self) -> tuple[list[float], list[float]]:
        made, gone = [], []
        with self._changes() as changes:
            for number in range(ROUNDS):
                name = f"one-{number}"
                made.append(milliseconds_of(lambda name=name: self._create_and_wait(name, changes)))
                gone.append(milliseconds_of(lambda name=name: self._delete_and_wait(name, changes)))
        return made, gone

    def _create_and_wait(self, name: str, changes: _Changes) -> None:
        self._create(name, "store")
        next(kind for kind, bundle in changes if bundle["metadata"]["name"] == name and is_ready(bundle))

    def _delete_and_wait(self, name: str, changes: _Changes) -> None:
        self._api.request("DELETE", bundles_path("default", name))
        next(kind for kind, bundle in changes if bundle["metadata"]["name"] == name and kind == "DELETED")

    def _restart(self) -> float:
        self._node.stop()
        shutil.rmtree(self._node.run_dir / "fake-volumes")  # which the fakes forget, as the kernel does its mounts
        self._node.start()
        self._idle()
        return cost_of(self._processes()).cpu_seconds

    def _processes(self) -> list[int]:
        assert self._node.server is not None
        return descendants(self._node.server.pid, not_below="conmon")

    def _create(self, name: str, service: str) -> None:
        body = {"apiVersion": "nanocloud.io/v1", "kind": "Bundle", "metadata": {"name": name}}
        self._api.request("POST", bundles_path("default"), body={**body, "spec": {"service": service}})

    def _wait(self, names: set[str]) -> None:
        """Until all of them are ready."""
        with self._changes() as changes:
            left = names - {bundle["metadata"]["name"] for bundle in self._list()["items"] if is_ready(bundle)}
            while left:
                _, bundle = next(changes)
                if is_ready(bundle):
                    left.discard(bundle["metadata"]["name"])

    def _list(self) -> Any:
        return self._api.request("GET", bundles_path("default"))

    @contextmanager
    def _changes(self) -> Iterator[_Changes]:
        """What happens to bundles from now on."""
        version = self._list()["metadata"]["resourceVersion"]
        query = {"resourceVersion": version, "timeoutSeconds": str(int(LIMIT_SECONDS))}

        def follow() -> _Changes:
            changes = self._node.api().watch(bundles_path("default"), query=query)
            with self._node.entered():  # it connects when the first is asked for
                yield next(changes)
            yield from changes

        with closing(follow()) as changes:
            yield changes

    def _idle(self) -> None:
        """Wait until the server has nothing to do but to ask, now and then, whether services are ready."""
        spent = cost_of(self._processes()).cpu_seconds
        while True:
            time.sleep(2)
            before, spent = spent, cost_of(self._processes()).cpu_seconds
            if spent - before < 0.1:
                return

    def _plan(self, bundle: dict[str, object]) -> None:
        self._api.request("POST", f"{bundles_path('default', 'planned')}/plan", body=bundle)

    def _command(self, command: list[str]) -> None:
        subprocess.run(command, env=self._node.environment, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
