"""Small helpers over trio that several parts need."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, TypeVarTuple, Unpack

import trio

from nanocloud.ambient import surroundings

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


async def in_thread(function: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
    """What blocks for a while, beside trio's own thread; it goes on to its end where the caller is cancelled."""
    if surroundings().threads:
        return await trio.to_thread.run_sync(function, *args)
    await trio.lowlevel.checkpoint()
    return function(*args)


async def gather(*functions: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Run side by side and return the results in order; the first failure cancels the others and is raised as it is."""
    results: list[Any] = [None] * len(functions)

    async def one(index: int, function: Callable[[], Awaitable[Any]]) -> None:
        results[index] = await function()

    try:
        async with trio.open_nursery() as nursery:
            for index, function in enumerate(functions):
                nursery.start_soon(one, index, function)
    except BaseExceptionGroup as group:
        raise first_error(group) from None
    return results


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first leaf of an exception group that is not a cancellation, else the group's first leaf."""
    leaves: list[BaseException] = []

    def collect(exc: BaseException) -> None:
        if isinstance(exc, BaseExceptionGroup):
            for inner in exc.exceptions:
                collect(inner)
        else:
            leaves.append(exc)

    collect(group)
    return next((leaf for leaf in leaves if not isinstance(leaf, trio.Cancelled)), leaves[0])


@contextmanager
def unwrapped() -> Iterator[None]:
    """Raise the first error of an exception group as itself: people and callers branch on one error."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise first_error(group) from group
