"""Work queues and workers: nothing is forgotten, nothing runs twice at once, a failure waits."""

from __future__ import annotations

import itertools
from typing import NoReturn

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from nanocloud.concurrency import first_error, gather, unwrapped
from nanocloud.errors import ConfigError, NotFoundError
from nanocloud.workers import keep_running, restart_forever
from nanocloud.workqueue import FIRST_BACKOFF_SECONDS, LAST_BACKOFF_SECONDS, WorkQueue


class Handler:
    """Remembers when it ran for which key; ``fail`` and ``hold`` say what happens then."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, float]] = []
        self.fail: dict[str, int] = {}
        self.hold = trio.Event()
        self.hold.set()
        self.at_once = self.most_at_once = 0
        self.running: set[str] = set()

    async def __call__(self, key: str) -> None:
        assert key not in self.running, "one key by one worker at a time"
        self.running.add(key)
        self.most_at_once = max(self.most_at_once, len(self.running))
        self.runs.append((key, trio.current_time()))
        try:
            await self.hold.wait()
            await trio.lowlevel.checkpoint()
            if self.fail.get(key, 0) > 0:
                self.fail[key] -= 1
                raise NotFoundError("not yet")
        finally:
            self.running.discard(key)

    @property
    def keys(self) -> list[str]:
        return [key for key, _ in self.runs]


@pytest.fixture
def handler() -> Handler:
    return Handler()


async def test_every_key_is_handled(handler: Handler) -> None:
    queue: WorkQueue[str] = WorkQueue("test")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.run, handler)
        for number in range(20):
            queue.add(str(number))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert sorted(handler.keys, key=int) == [str(number) for number in range(20)]
    assert handler.most_at_once == 4


async def test_a_key_that_waits_is_not_queued_twice(handler: Handler) -> None:
    queue: WorkQueue[str] = WorkQueue("test")
    for _ in range(5):
        queue.add("a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.run, handler)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert handler.keys == ["a"]


async def test_a_key_that_is_added_while_it_is_handled_runs_once_more(handler: Handler) -> None:
    queue: WorkQueue[str] = WorkQueue("test")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.run, handler)
        handler.hold = trio.Event()
        queue.add("a")
        await wait_all_tasks_blocked()
        for _ in range(5):
            queue.add("a")
        handler.hold.set()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert handler.keys == ["a", "a"]


async def test_a_failure_is_retried_ever_later_and_a_success_forgets_it(
    handler: Handler, autojump_clock: MockClock
) -> None:
    queue: WorkQueue[str] = WorkQueue("test")
    handler.fail["a"] = 10
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(queue.run, handler)
            queue.add("a")
            await trio.sleep(1000)
            times = [time for _, time in handler.runs]
            pauses = [round(later - earlier, 6) for earlier, later in itertools.pairwise(times)]
            assert pauses == [min(FIRST_BACKOFF_SECONDS * 2**n, LAST_BACKOFF_SECONDS) for n in range(10)]
            handler.fail["a"] = 1
            queue.add("a")
            await trio.sleep(100)
            assert handler.runs[-1][1] - handler.runs[-2][1] == FIRST_BACKOFF_SECONDS
            nursery.cancel_scope.cancel()
    assert {entry["event"] for entry in logs} == {"reconcile failed"}


async def test_one_failing_key_does_not_hold_up_others(handler: Handler, autojump_clock: MockClock) -> None:
    queue: WorkQueue[str] = WorkQueue("test")
    handler.fail["a"] = 1000
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.run, handler)
        queue.add("a")
        await trio.sleep(30)
        queue.add("b")
        await wait_all_tasks_blocked()
        assert handler.runs[-1] == ("b", trio.current_time())
        nursery.cancel_scope.cancel()


async def test_a_later_delay_replaces_the_earlier(handler: Handler, autojump_clock: MockClock) -> None:
    queue: WorkQueue[str] = WorkQueue("test")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.run, handler)
        await wait_all_tasks_blocked()
        began = trio.current_time()
        queue.add_after("a", 10)
        queue.add_after("a", 20)
        await wait_all_tasks_blocked()
        queue.add_after("a", 5)
        await trio.sleep(60)
        assert [time - began for _, time in handler.runs] == [5]
        nursery.cancel_scope.cancel()


# ---- workers ---------------------------------------------------------------------------------------------------------


async def test_a_worker_that_crashes_or_returns_is_started_again_ever_later(autojump_clock: MockClock) -> None:
    starts: list[float] = []

    class Worker:
        name = "w"

        async def run(self) -> None:
            starts.append(trio.current_time())
            async with trio.open_nursery():
                if len(starts) % 2:
                    raise SystemExit if len(starts) == 3 else ValueError("boom")

    with capture_logs() as logs, trio.move_on_after(200):
        await keep_running(Worker())
    pauses = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert pauses[:8] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert {entry["event"] for entry in logs} == {"worker crashed", "worker returned"}


async def test_a_worker_that_ran_for_long_is_started_again_soon(autojump_clock: MockClock) -> None:
    starts: list[float] = []

    async def run() -> None:
        starts.append(trio.current_time())
        await trio.sleep(0 if len(starts) < 8 else 1000)
        raise ValueError("boom")

    with capture_logs(), trio.move_on_after(5000):
        await restart_forever("w", run)
    assert starts[8] - starts[7] == 1000.5


async def test_cancelling_ends_a_worker(autojump_clock: MockClock) -> None:
    async def run() -> NoReturn:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()

    with trio.move_on_after(5) as scope:
        await restart_forever("w", run)
    assert scope.cancelled_caught


async def test_the_end_of_the_process_is_no_crash() -> None:
    async def run() -> None:
        async with trio.open_nursery():
            raise KeyboardInterrupt

    with pytest.raises(BaseExceptionGroup) as caught:
        await restart_forever("w", run)
    assert caught.group_contains(KeyboardInterrupt)


# ---- concurrency -----------------------------------------------------------------------------------------------------


async def test_gather_keeps_the_order_and_runs_side_by_side(autojump_clock: MockClock) -> None:
    async def after(seconds: float) -> float:
        await trio.sleep(seconds)
        return seconds

    assert await gather(lambda: after(3), lambda: after(1), lambda: after(2)) == [3, 1, 2]
    assert trio.current_time() == 3
    assert await gather() == []


async def test_gather_raises_the_failure_itself_and_cancels_the_rest(autojump_clock: MockClock) -> None:
    cancelled = False

    async def forever() -> None:
        nonlocal cancelled
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled = True
            raise

    async def fail() -> None:
        await trio.sleep(1)
        raise NotFoundError("x")

    with pytest.raises(NotFoundError):
        await gather(forever, fail)
    assert cancelled


async def test_gather_can_be_cancelled(autojump_clock: MockClock) -> None:
    with trio.move_on_after(1) as scope:
        await gather(trio.sleep_forever, trio.sleep_forever)
    assert scope.cancelled_caught


def test_the_first_error_of_nested_groups() -> None:
    inner = ExceptionGroup("inner", [ConfigError("first"), NotFoundError("second")])
    assert str(first_error(ExceptionGroup("outer", [inner, ValueError("third")]))) == "first"


def test_unwrapped_raises_one_error_and_lets_others_pass() -> None:
    with pytest.raises(ConfigError, match="x"), unwrapped():
        raise ExceptionGroup("group", [ConfigError("x")])
    with pytest.raises(ValueError, match="y"), unwrapped():
        raise ValueError("y")


async def test_a_failure_waits_after_thousands_in_a_row_as_well(autojump_clock: MockClock) -> None:
    handler = Handler()
    handler.fail["a"] = 3000
    queue: WorkQueue[str] = WorkQueue("test", last_backoff_seconds=1.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.run, handler)
        queue.add("a")
        await trio.sleep(4000)
        assert handler.fail["a"] == 0
        assert len(handler.runs) == 3001
        nursery.cancel_scope.cancel()
