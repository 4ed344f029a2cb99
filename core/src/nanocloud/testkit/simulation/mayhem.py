"""What goes wrong in a random story: errors, lost answers, slow calls, outages, kills, exits, clock jumps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from nanocloud.errors import NanocloudError
from nanocloud.testkit.faults import NOTHING, Fault, FaultChances, injected_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from random import Random

    from nanocloud.testkit.faults import Call
    from nanocloud.testkit.simulation.machine import Simulation
    from nanocloud.testkit.simulation.server import Server
    from nanocloud.testkit.simulation.services import Databases
    from nanocloud.testkit.simulation.trace import Trace

_LONGEST_PAUSE_SECONDS = 25.0
_LONGEST_STORM_SECONDS = 40.0
_MOST_STEPS_TO_LIVE = 300
_MOST_COMMAND_STEPS = 8
_PROVIDERS = ("storage", "images", "network", "runtime", "volume", "binding")
_JUMPS_SECONDS = (-86_400.0, -3700.0, -90.0, -1.0, 1.0, 90.0, 3700.0, 86_400.0)


class Mayhem:
    """A source of faults with a will of its own. While ``calm`` nothing happens."""

    def __init__(self, machine: Simulation, databases: Databases, rng: Random, trace: Trace) -> None:
        self.calm = False
        self._machine, self._databases, self._rng, self._trace = machine, databases, rng, trace
        self._down: set[str] = set()
        self._storm = FaultChances(rng=rng)

    def __call__(self, call: Call) -> Fault:
        if self.calm:
            return NOTHING
        fault = Fault(error=injected_error(call)) if call.provider in self._down else self._storm(call)
        if fault is not NOTHING:
            self._trace.add(f"fault at {call.provider} {call.method} {call.subject}: {_shown(fault)}")
        return fault

    async def rage(self, server: Server) -> None:
        """One thing after the other, until cancelled; what is under way then ends with it."""
        kinds: tuple[Callable[[Server], Awaitable[None]], ...] = (
            self._be_stormy,
            self._take_down_a_provider,
            self._kill_the_server,
            self._end_a_container,
            self._set_the_clock,
            self._compact,
            self._kill_a_command,
        )
        while True:
            await trio.sleep(self._rng.uniform(0, _LONGEST_PAUSE_SECONDS))
            await self._rng.choice(kinds)(server)

    async def _be_stormy(self, _: Server) -> None:
        draw = self._rng.random
        self._storm = FaultChances(
            rng=self._rng, fail=0.1 * draw(), lose=0.05 * draw(), delay=0.2 * draw(), longest_delay_seconds=10 * draw()
        )
        self._trace.add("a storm begins")
        try:
            await trio.sleep(self._rng.uniform(1, _LONGEST_STORM_SECONDS))
        finally:
            self._storm = FaultChances(rng=self._rng)

    async def _take_down_a_provider(self, _: Server) -> None:
        provider = self._rng.choice(_PROVIDERS)
        self._trace.add(f"{provider} is down")
        self._down.add(provider)
        try:
            await trio.sleep(self._rng.uniform(1, _LONGEST_STORM_SECONDS))
        finally:
            self._down.discard(provider)

    async def _kill_the_server(self, _: Server) -> None:
        faults = self._machine.faults
        faults.crash_at = faults.taken + self._rng.randint(1, _MOST_STEPS_TO_LIVE)
        self._trace.add(f"the server dies at step {faults.crash_at}")

    async def _end_a_container(self, _: Server) -> None:
        end_some_container(self._machine, self._rng, self._trace)

    async def _set_the_clock(self, _: Server) -> None:
        self._machine.clock_offset_seconds += (jump := self._rng.choice(_JUMPS_SECONDS))
        self._trace.add(f"the clock is set by {jump:g} s")

    async def _compact(self, server: Server) -> None:
        keyspace = server.store.keyspace
        try:
            await keyspace.compact(max(0, keyspace.revision - self._rng.randint(0, 60)))
        except NanocloudError as exc:
            self._trace.add(f"compaction: {exc}")

    async def _kill_a_command(self, _: Server) -> None:
        self._databases.kill_after(self._rng.randint(1, _MOST_COMMAND_STEPS))
        self._trace.add("a binding command will be killed")


def end_some_container(machine: Simulation, rng: Random, trace: Trace) -> None:
    if running := sorted(machine.runtime.running):
        container = rng.choice(running)
        trace.add(f"container {container} ends by itself")
        machine.runtime.exit(container, rng.choice((0, 1, 137)))


def _shown(fault: Fault) -> str:
    words = [f"{fault.delay_seconds:.3f} s late"] if fault.delay_seconds else []
    if fault.error is not None:
        words.append("its answer is lost" if fault.after else "it fails")
    return ", ".join(words)
