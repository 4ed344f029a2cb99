"""A server that dies: runs a runtime over given folders until it is killed. For ``test_crun_adoption``.

Usage: crun_server.py STATE_DIR RUN_DIR CGROUP IMAGE LOGS ACTION

ACTION is ``run`` (make and start the containers named below, say "ready", wait for ever), ``create:STEP`` or
``remove:STEP``, ``start:STEP``: do that to the container ``victim`` and die by SIGKILL at STEP, the name of a function
of the package that is about to be called. ``version2`` sees a host with cgroup version 2 alone, runs a container
with an exec, stops it, and prints the layout and both exit codes.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio

from nanocloud.providers.runtime import ContainerId, ContainerSpec, ExecSpec, Resources
from nanocloud.testkit.specs import container_spec
from nanocloud_runtime_crun import _syscalls
from nanocloud_runtime_crun.runtime import CrunConfig, CrunRuntime

SCRIPTS = {
    "quiet": "sleep 1000000",
    "chatty": "mkfifo /done; for i in $(seq 3000); do echo line $i; done; echo done; echo > /done; sleep 1000000",
    "brief": "trap 'exit 9' TERM; while true; do sleep 0.01; done",
    "victim": "sleep 1000000",
}


def spec(name: str, image: Path, logs: Path) -> ContainerSpec:
    return container_spec(name, logs, argv=("/bin/sh", "-c", SCRIPTS[name]), layers=(image,), labels={"name": name})


def die_at(step: str) -> None:
    """Let the process be killed when the function ``module.function`` of the package is called."""
    module_name, _, function = step.rpartition(".")
    module: Any = importlib.import_module(f"nanocloud_runtime_crun.{module_name}")

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()

    setattr(module, function, die)


def see_version_2() -> None:
    """A mount namespace of this process in which cgroup version 2 covers what the machine has."""
    _syscalls.unshare(_syscalls.CLONE_NEWNS)
    _syscalls.mount("", "/", "", _syscalls.MS_REC | _syscalls.MS_PRIVATE)
    _syscalls.mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0)


async def run_on_version_2(runtime: CrunRuntime, wanted: ContainerSpec) -> None:
    async with runtime:
        # The controllers are version 1's on the machine of the test, so nothing can be limited.
        await runtime.create(attrs.evolve(wanted, resources=Resources(pids=None)))
        await runtime.start(wanted.id)
        async with runtime.exec(wanted.id, ExecSpec(argv=("sh", "-c", "exit 3"))) as session:
            executed = await session.wait()
        stopped = await runtime.stop(wanted.id, grace_seconds=0)
        print(runtime._host.cgroups.layout.name, executed, stopped.code)
    await runtime.purge()


async def main(state: str, run: str, cgroup: str, image: str, logs: str, action: str) -> None:
    runtime = CrunRuntime(CrunConfig(cgroup=cgroup), state_dir=Path(state), run_dir=Path(run))
    if action == "version2":
        see_version_2()
        await run_on_version_2(runtime, spec("quiet", Path(image), Path(logs)))
        return
    async with runtime:
        verb, _, step = action.partition(":")
        if verb == "run":
            for name in ("quiet", "chatty", "brief"):
                await runtime.create(spec(name, Path(image), Path(logs)))
                await runtime.start(ContainerId(name))
            async with runtime.exec(ContainerId("quiet"), ExecSpec(argv=("sleep", "1000000"))):
                print("ready", flush=True)
                await trio.sleep_forever()
        victim = ContainerId("victim")
        if verb == "create":
            die_at(step)
        await runtime.create(spec("victim", Path(image), Path(logs)))
        if verb == "start":
            die_at(step)
        await runtime.start(victim)
        if verb == "remove":
            die_at(step)
        await runtime.remove(victim)


if __name__ == "__main__":
    trio.run(partial(main, *sys.argv[1:]))
