"""Readiness: asked early and often until the service is ready, then slowly.

Asking starts a process in the container, which is all that an idle node does. So the script of the image contract is
asked ever less often while a service stays ready, and in its probe's period again from the first failure on. That a
container ended is noticed at once, by other means. Any other command is asked in its period, as its pod's author wrote.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from nanocloud.errors import NanocloudError
from nanocloud.planning.workload import READY_COMMAND
from nanocloud.providers.runtime import ExecSpec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nanocloud.providers.runtime import ContainerId, RuntimeProvider

FIRST_DELAY_SECONDS, LAST_DELAY_SECONDS = 0.05, 2.0
LONGEST_PERIOD_SECONDS = 300.0
"""Between two questions to a service that stays ready."""
_OUTPUT_BYTES = 4096


async def watch_readiness(
    probe: dict[str, Any] | None,
    container: ContainerId,
    runtime: RuntimeProvider,
    report: Callable[[bool, str], Awaitable[None]],
) -> None:
    """Tell ``report(ready, why_not)`` of each change, until cancelled. Without a probe a running container is ready.

    A service that starts is not ready for a moment, which is nothing to report; one that takes longer than its probe's
    period is, once.
    """
    command = tuple(((probe or {}).get("exec") or {}).get("command") or ())
    if not probe or not command:
        await report(True, "")
        return
    # A script of a cold service may need longer than Kubernetes' default of one second.
    timeout = max(float(probe.get("timeoutSeconds", 1)), 5.0)
    period, threshold = float(probe.get("periodSeconds", 10)), int(probe.get("failureThreshold", 3))
    longest = max(period, LONGEST_PERIOD_SECONDS) if command == (READY_COMMAND,) else period
    ready, failures, delay, pause = False, 0, FIRST_DELAY_SECONDS, period
    patience = trio.current_time() + period
    told = False
    while True:
        code, output = await _ask(command, container, runtime, timeout)
        if code == 0:
            failures, delay, told = 0, FIRST_DELAY_SECONDS, False
            if not ready:
                ready = True
                await report(True, "")
            await trio.sleep(pause)
            pause = min(pause * 2, longest)
            continue
        failures, pause = failures + 1, period
        if failures >= threshold and not told and (ready or trio.current_time() >= patience):
            ready, told = False, True
            await report(False, f"{command[0]} ended with {code}" + (f": {output}" if output else ""))
        if ready:
            await trio.sleep(period)  # a service that was ready gets the time that the probe grants it
        else:
            await trio.sleep(delay)
            delay = min(delay * 1.5, LAST_DELAY_SECONDS)


async def _ask(
    command: tuple[str, ...], container: ContainerId, runtime: RuntimeProvider, timeout_seconds: float
) -> tuple[int, str]:
    """Exit code and the last line said; 124 after the timeout, as timeout(1) has it."""
    output = bytearray()
    try:
        with trio.move_on_after(timeout_seconds):
            async with runtime.exec(container, ExecSpec(argv=command)) as session:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_collect, session.stdout, output)
                    if session.stderr is not None:
                        nursery.start_soon(_collect, session.stderr, output)
                return await session.wait(), _last_line(output)
    except NanocloudError as exc:
        return 126, str(exc)
    return 124, f"no answer within {timeout_seconds:g} s"


async def _collect(stream: trio.abc.ReceiveStream, output: bytearray) -> None:
    async for piece in stream:
        output += piece
        del output[:-_OUTPUT_BYTES]


def _last_line(output: bytearray) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else ""
