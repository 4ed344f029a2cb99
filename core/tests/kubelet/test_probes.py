"""Readiness: asked often while a service starts, seldom when it runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from nanocloud.kubelet.probes import watch_readiness
from nanocloud.planning.workload import READY_COMMAND
from nanocloud.providers.runtime import ContainerId
from nanocloud.testkit import FakeExec, FakeRuntime
from nanocloud.testkit.specs import container_spec

WEB = ContainerId("web")
PROBE = {"exec": {"command": [READY_COMMAND]}, "periodSeconds": 2, "timeoutSeconds": 10, "failureThreshold": 3}
Handler = Callable[[FakeExec], Awaitable[int]]


async def watched(
    tmp_path: Path, handler: Handler, *, seconds: float, probe: dict[str, Any] | None = PROBE
) -> list[tuple[float, bool, str]]:
    """What was reported, and when."""
    runtime = FakeRuntime(exec_handler=handler)
    await runtime.create(container_spec(WEB, tmp_path))
    await runtime.start(WEB)
    began, reports = trio.current_time(), []

    async def report(ready: bool, why_not: str) -> None:
        reports.append((round(trio.current_time() - began, 3), ready, why_not))

    with trio.move_on_after(seconds):
        await watch_readiness(probe, WEB, runtime, report)
    return reports


def answers(*codes: int, then: int = 0) -> tuple[Handler, list[float]]:
    left, asked = list(codes), []

    async def handler(_: FakeExec) -> int:
        asked.append(trio.current_time())
        return left.pop(0) if left else then

    return handler, asked


async def test_without_a_probe_what_runs_is_ready(tmp_path: Path, autojump_clock: MockClock) -> None:
    handler, asked = answers()
    assert await watched(tmp_path, handler, seconds=60, probe=None) == [(0, True, "")]
    assert asked == []


async def test_a_ready_service_is_told_once_and_asked_ever_less_often(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    handler, asked = answers()
    assert await watched(tmp_path, handler, seconds=24 * 3600) == [(0, True, "")]
    pauses = [after - before for before, after in pairwise(asked)]
    assert pauses[:9] == pytest.approx([2, 4, 8, 16, 32, 64, 128, 256, 300])
    assert len(asked) < 24 * 3600 / 300 + 9


async def test_another_command_is_asked_in_its_period(tmp_path: Path, autojump_clock: MockClock) -> None:
    handler, asked = answers()
    probe = PROBE | {"exec": {"command": ["/check"]}}
    assert await watched(tmp_path, handler, seconds=60, probe=probe) == [(0, True, "")]
    assert len(asked) == 30


async def test_a_service_that_failed_once_is_asked_in_its_period_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    handler, asked = answers(*[0] * 9, 1)
    assert await watched(tmp_path, handler, seconds=900) == [(0, True, "")]
    pauses = [after - before for before, after in pairwise(asked)]
    assert pauses[8:12] == pytest.approx([300, 2, 2, 4])


async def test_a_starting_service_is_asked_early_and_often_then_slower(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    handler, asked = answers(*[1] * 6)
    reports = await watched(tmp_path, handler, seconds=60)
    assert [ready for _, ready, _ in reports] == [True], "a moment of starting is nothing to tell"
    assert reports[0][0] < 1.1
    assert len([moment for moment in asked if moment - asked[0] < 1]) >= 6
    handler, _ = answers(*[1] * 20)
    assert [ready for _, ready, _ in await watched(tmp_path, handler, seconds=60)] == [False, True]
    handler, asked = answers(then=1)
    await watched(tmp_path, handler, seconds=600)
    assert asked[-1] - asked[-2] == pytest.approx(2)


async def test_a_service_that_was_ready_fails_only_after_its_threshold_of_periods(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    handler, _ = answers(0, 1, 1, 0, 1, 1, 1, 0)
    assert await watched(tmp_path, handler, seconds=60) == [
        (0, True, ""),
        (12, False, f"{READY_COMMAND} ended with 1"),
        (12.05, True, ""),
    ]


async def test_a_script_that_hangs_counts_as_a_failure(tmp_path: Path, autojump_clock: MockClock) -> None:
    async def hangs(_: FakeExec) -> int:
        await trio.sleep_forever()
        raise AssertionError

    reports = await watched(tmp_path, hangs, seconds=60)
    assert reports[0][1:] == (False, f"{READY_COMMAND} ended with 124: no answer within 10 s")


async def test_the_last_line_of_a_failing_script_is_told_whatever_it_prints(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async def chatty(session: FakeExec) -> int:
        for _ in range(50):
            await session.stdout.send_all(b"x" * 5000 + b"\n")
        await session.stdout.send_all(b"\xff socket is missing\n\n")
        return 1

    reports = await watched(tmp_path, chatty, seconds=10)
    assert reports[0][2] == f"{READY_COMMAND} ended with 1: \ufffd socket is missing"


async def test_a_container_that_ended_is_not_ready(tmp_path: Path, autojump_clock: MockClock) -> None:
    async def ends(session: FakeExec) -> int:
        session.container.finish(3)
        return 0

    reports = await watched(tmp_path, ends, seconds=60)
    assert reports[-1][1] is False
    assert "is exited, not running" in reports[-1][2]
