"""Work that several callers want at once is done once; failures and cancellations reach whom they concern."""

import pytest
import trio
import trio.testing

from nanocloud.errors import ImageError
from nanocloud_dockyard.shared import SharedWork


class Work:
    """Counts its runs; each waits until it is let go."""

    def __init__(self, error=None) -> None:
        self.runs = self.cancelled = 0
        self.go = trio.Event()
        self.error = error

    async def __call__(self):
        self.runs += 1
        try:
            await self.go.wait()
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)  # cleaning up takes its time
            self.cancelled += 1
            raise
        if self.error:
            raise self.error
        return self.runs


@pytest.fixture
async def shared(nursery):
    return SharedWork(nursery)


async def test_callers_at_once_share_one_run(shared, nursery):
    work, results = Work(), []

    async def call():
        results.append(await shared.run("key", "way", work))

    for _ in range(5):
        nursery.start_soon(call)
    await trio.testing.wait_all_tasks_blocked()
    work.go.set()
    await trio.testing.wait_all_tasks_blocked()
    assert results == [1] * 5
    assert await shared.run("key", "way", work) == 2  # nothing is remembered


async def test_a_failure_reaches_all_who_wanted_the_same_way(shared, nursery):
    work, caught = Work(ImageError("bad")), []

    async def call():
        with pytest.raises(ImageError, match="bad"):
            await shared.run("key", "way", work)
        caught.append(1)

    for _ in range(3):
        nursery.start_soon(call)
    await trio.testing.wait_all_tasks_blocked()
    work.go.set()
    await trio.testing.wait_all_tasks_blocked()
    assert (work.runs, len(caught)) == (1, 3)


async def test_who_knows_another_way_goes_it_when_the_first_fails(shared, nursery):
    liar, honest, results = Work(ImageError("bad")), Work(), []
    honest.go.set()

    async def deceived():
        with pytest.raises(ImageError, match="bad"):
            await shared.run("key", "liar", liar)

    async def true():
        results.append(await shared.run("key", "honest", honest))

    nursery.start_soon(deceived)
    await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(true)
    await trio.testing.wait_all_tasks_blocked()
    assert honest.runs == 0  # it hopes for the first
    liar.go.set()
    await trio.testing.wait_all_tasks_blocked()
    assert results == [1]


async def test_one_who_gives_up_leaves_the_work_to_the_others(shared, nursery):
    work, results = Work(), []

    async def call():
        results.append(await shared.run("key", "way", work))

    async with trio.open_nursery() as patient:
        patient.start_soon(call)
        async with trio.open_nursery() as impatient:
            impatient.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            impatient.cancel_scope.cancel()
        work.go.set()
    assert (results, work.cancelled) == ([1], 0)


async def test_the_last_who_gives_up_waits_until_it_is_cleaned_up(shared, autojump_clock):
    work = Work()
    with trio.move_on_after(5):
        await shared.run("key", "way", work)
    assert work.cancelled == 1
    work.go.set()
    assert await shared.run("key", "way", work) == 2


async def test_closing_ends_the_work_with_an_error():
    work = Work()
    async with trio.open_nursery() as outer, trio.open_nursery() as inner:
        shared = SharedWork(inner)

        async def call():
            with pytest.raises(ImageError, match="is closing"):
                await shared.run("key", "way", work)

        outer.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        inner.cancel_scope.cancel()
