"""Slots for work of different sizes."""

from __future__ import annotations

import pytest
import trio

from nanocloud_dockyard.slots import Slots


async def use(slots, size, order, seconds=1.0):
    async with slots.hold(size):
        order.append(size)
        await trio.sleep(seconds)


@pytest.mark.parametrize("attempt", range(5))
async def test_those_who_come_together_are_served_by_size(autojump_clock, attempt):
    slots, order = Slots(2), []
    async with trio.open_nursery() as nursery:
        for size in (3, 9, 1, 7, 5):
            nursery.start_soon(use, slots, size, order)
    assert (sorted(order[:2]), sorted(order[2:4]), order[4]) == ([7, 9], [3, 5], 1)


async def test_no_more_than_the_slots_run_at_once(autojump_clock):
    slots, began = Slots(2), trio.current_time()
    async with trio.open_nursery() as nursery:
        for size in range(6):
            nursery.start_soon(use, slots, size, [])
    assert trio.current_time() - began == pytest.approx(3)


async def test_who_leaves_the_queue_or_fails_takes_no_slot_along(autojump_clock):
    slots, order = Slots(1), []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(use, slots, 9, order, 5)
        await trio.sleep(1)
        with trio.move_on_after(1):
            await use(slots, 8, order)
        with trio.move_on_after(4.5):  # cancelled while it holds the slot
            await use(slots, 7, order, 60)
    with pytest.raises(ValueError, match="broken"):
        async with slots.hold(1):
            raise ValueError("broken")
    with trio.fail_after(2):
        await use(slots, 1, order)
    assert order == [9, 7, 1]
