"""Indexes: they hold what was written before the question, whatever happened since the last one."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import trio

from nanocloud.keyspace import Delete, Keyspace, Put
from nanocloud.testkit import FakeStorage
from nanocloud.testkit.disk import FakeDisk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from nanocloud.keyspace import Entry, Index


@pytest.fixture
async def keyspace() -> AsyncIterator[Keyspace]:
    async with FakeStorage(FakeDisk()) as storage, Keyspace.open(storage) as opened:
        yield opened


def words(entry: Entry) -> Iterator[str]:
    yield from entry.value.decode().split()


def index(keyspace: Keyspace) -> Index:
    return keyspace.index(("a",), words)


async def names(found: Index, group: str) -> set[str]:
    return {key[-1] for key in await found.members(group)}


async def test_an_entry_is_in_every_group_that_its_value_names(keyspace: Keyspace) -> None:
    await keyspace.put(("a", "1"), b"red blue")
    await keyspace.put(("b", "2"), b"red")
    found = index(keyspace)
    assert await names(found, "red") == {"1"}
    await keyspace.put(("a", "3"), b"red")
    assert await names(found, "red") == {"1", "3"}
    await keyspace.transact([], [Put(("a", "1"), b"green blue"), Delete(("a", "3"))])
    assert [await names(found, group) for group in ("red", "green", "blue")] == [set(), {"1"}, {"1"}]


async def test_an_index_that_was_not_asked_for_long_is_right_when_it_is(keyspace: Keyspace) -> None:
    found, again = index(keyspace), index(keyspace)
    for asked in (found, again):
        assert await names(asked, "red") == set()
    for number in range(3000):  # more than a watch keeps
        await keyspace.put(("a", str(number % 10)), b"red" if number % 3 else b"blue")
    expected = {str(number % 10) for number in range(2990, 3000) if number % 3}
    assert await names(found, "red") == expected
    await keyspace.compact(keyspace.revision)
    assert await names(again, "red") == expected  # its place was forgotten: it reads all again
    await keyspace.put(("a", "new"), b"red")
    assert await names(again, "red") == {*expected, "new"}


async def test_a_question_that_is_cancelled_loses_nothing(keyspace: Keyspace) -> None:
    found = index(keyspace)
    for number in range(50):
        await keyspace.put(("a", str(number)), b"red")
        with trio.move_on_after(0):
            await found.members("red")
    assert await names(found, "red") == {str(number) for number in range(50)}


async def test_questions_and_writes_side_by_side(keyspace: Keyspace) -> None:
    found, rng = index(keyspace), random.Random(7)
    missed: list[str] = []

    async def write_and_ask(worker: int) -> None:
        for number in range(60):
            name, group = f"{worker}-{number % 5}", rng.choice(("red", "blue"))
            await keyspace.put(("a", name), group.encode())
            if name not in await names(found, group):
                missed.append(f"{name} in {group}")

    async with trio.open_nursery() as nursery:
        for worker in range(8):
            nursery.start_soon(write_and_ask, worker)
    assert missed == []
