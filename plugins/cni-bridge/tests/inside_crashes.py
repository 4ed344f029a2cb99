"""Killed at any moment, the next start finds or heals everything. Run as ``inside_network.py`` is."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from inside_world import GATEWAY, command, inventory, link_of, outer_inventory, ping

from nanocloud.testkit.specs import sandbox_spec
from nanocloud_cni_bridge.network import BridgeNetwork


class Crasher:
    """Drives ``crash_child.py``."""

    def __init__(self, folder: Path) -> None:
        child = Path(__file__).with_name("crash_child.py")
        self._process = subprocess.Popen(
            [sys.executable, str(child), str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    def crash(self, how: str, kill_after: float | None) -> None:
        print(how, file=self._stdin, flush=True)
        pid = int(self._stdout.readline())
        line = self._stdout.readline()
        if line == "ready\n":
            if kill_after is not None:
                time.sleep(kill_after)
                os.kill(pid, signal.SIGKILL)
            line = self._stdout.readline()
        assert line == "dead\n"

    def close(self) -> None:
        self._stdin.close()
        assert self._process.wait(10) == 0
        self._stdout.close()


@pytest.fixture
def crasher(tmp_path: Path) -> Iterator[Crasher]:
    made = Crasher(tmp_path)
    yield made
    made.close()


def unfinished(folder: Path) -> list[Path]:
    return list(folder.rglob("*.new"))


async def recover(make: Callable[..., BridgeNetwork], folder: Path) -> None:
    """Open after a crash: what is listed is whole and works, and nothing else is there."""
    async with make() as provider:
        found = await provider.list()
        names = sorted(n.sandbox for n in found)
        assert inventory(folder) == {
            "links": sorted(link_of(n) for n in names),
            "namespaces": names,
            "mounts": len(names),
            "records": names,
            "ports": 2 * sum(len(n.ports) for n in found),
        }
        assert not unfinished(folder)
        for sandbox in found:
            await ping(sandbox.namespace_path, GATEWAY)
            await provider.detach(sandbox.sandbox)


async def test_killed_at_any_time_nothing_is_left_over(
    make: Callable[..., BridgeNetwork], crasher: Crasher, tmp_path: Path
) -> None:
    for _ in range(20):
        await trio.to_thread.run_sync(crasher.crash, "random", random.random() / 10)
        await recover(make, tmp_path)
    await make().purge()


async def test_killed_at_every_step_nothing_is_left_over(
    make: Callable[..., BridgeNetwork], crasher: Crasher, tmp_path: Path
) -> None:
    before = outer_inventory(tmp_path)
    for point in ("prepare", "bridge", "replace", "remove", "pin", "mount", "add_pair", "create", "publish", "run_nft",
                  "write", "remember", "unrecord", "withdraw", "delete_link"):  # fmt: skip
        for when in ("before", "after"):
            await trio.to_thread.run_sync(crasher.crash, f"{point} {when}", None)
            await recover(make, tmp_path)
    await make().purge()
    assert outer_inventory(tmp_path) == before


async def test_leftovers_without_record_are_removed(make: Callable[..., BridgeNetwork], tmp_path: Path) -> None:
    async with make() as provider:
        kept = await provider.attach(sandbox_spec("kept"))
    folder = tmp_path / "run/netns"
    (folder / "file-without-mount").touch()
    command("touch", str(folder / "mount-without-link"))
    command("mount", "--bind", "/proc/self/ns/net", str(folder / "mount-without-link"))
    command("ip", "link", "add", "nc0123456789", "group", str(0x6E63), "type", "veth", "peer", "name", "ncpeer")
    command("ip", "link", "add", "nc9876543210", "type", "veth", "peer", "name", "foreign")  # not of our group
    (tmp_path / "run/network/attached/broken.json").write_text("{")
    (tmp_path / "run/network/attached/gone.json").write_text(
        json.dumps({"sandbox": "gone", "owner": "default/gone", "addresses": ["10.118.0.77"], "ports": []})
    )
    (tmp_path / "run/network/attached/other.json").write_text(
        json.dumps({"sandbox": "../kept", "owner": "default/x", "addresses": ["10.118.0.78"], "ports": []})
    )
    async with make() as provider:
        assert await provider.list() == [kept]
        assert inventory(tmp_path)["namespaces"] == inventory(tmp_path)["records"] == ["kept"]
        assert inventory(tmp_path)["links"] == [link_of("kept")]
    command("ip", "link", "del", "nc9876543210")
    await make().purge()
