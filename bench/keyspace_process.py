"""Our side of the measure ``keyspace``: a process that opens a keyspace in a folder and says what it took, as JSON.

``keyspace_process.py <folder> put <writers> <count>``, ``transact <writers> <count>``, ``get <count>``,
``watch <count>``, ``load <keys>``, ``start``.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio

from nanocloud.keyspace import Compare, Keyspace, Put
from nanocloud.storage import SqliteStorage

VALUE = b"v" * 1024
KEYS = 500
_LOAD_BATCH = 500
IDLE_SECONDS = 2.5
"""Of both, before writes are counted: ours reserves its journal in its first idle moments; etcd's is there before it
answers."""


def key(number: int) -> tuple[str, ...]:
    return ("bench", "things", "default", f"thing-{number:06}")


async def put(keyspace: Keyspace, writers: int, count: int) -> dict[str, Any]:
    """Plain puts over 500 keys."""
    numbers = itertools.count()

    async def one(_: int) -> None:
        await keyspace.put(key(next(numbers) % KEYS), VALUE)

    return await _watched(keyspace, one, writers, count)


async def transact(keyspace: Keyspace, writers: int, count: int) -> dict[str, Any]:
    """Compare-and-put with a lease; each writer has a key of its own."""
    revisions = [0] * writers

    async def one(writer: int) -> None:
        mine = key(writer)
        write = Put(mine, VALUE, ttl_seconds=3600)
        revisions[writer] = await keyspace.transact([Compare(mine, revisions[writer])], [write])

    return await _watched(keyspace, one, writers, count)


async def _watched(
    keyspace: Keyspace, one: Callable[[int], Awaitable[None]], writers: int, count: int
) -> dict[str, Any]:
    """Every writer calls ``one`` again and again; a watcher follows all of it."""
    took: list[float] = []
    seen = 0
    left = count

    async def write(writer: int) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            began = time.perf_counter()
            await one(writer)
            took.append(time.perf_counter() - began)

    async def follow() -> None:
        nonlocal seen
        async for _ in watcher:
            seen += 1

    async with keyspace.watch(("bench",), after=keyspace.revision) as watcher, trio.open_nursery() as following:
        following.start_soon(follow)
        cpu, began = time.process_time(), time.perf_counter()
        async with trio.open_nursery() as nursery:
            for writer in range(writers):
                nursery.start_soon(write, writer)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        while seen < count:
            await trio.lowlevel.checkpoint()
        following.cancel_scope.cancel()
    return {"rate": len(took) / seconds, "seconds": took, "cpu_us": cpu / count * 1e6}


async def get(keyspace: Keyspace, count: int) -> dict[str, Any]:
    for number in range(KEYS):
        await keyspace.put(key(number), VALUE)
    began = time.perf_counter()
    for number in range(count):
        assert await keyspace.get(key(number % KEYS)) is not None
    return {"rate": count / (time.perf_counter() - began)}


async def watch(keyspace: Keyspace, count: int) -> dict[str, Any]:
    """From the call of a put to its event at a watcher in another task, one at a time."""
    took: list[float] = []
    async with keyspace.watch(("bench",), after=keyspace.revision) as watcher, trio.open_nursery() as nursery:
        for _ in range(count):
            began = time.perf_counter()
            nursery.start_soon(keyspace.put, key(0), VALUE)
            await watcher.__anext__()
            took.append(time.perf_counter() - began)
    return {"seconds": took}


async def load(keyspace: Keyspace, keys: int) -> dict[str, Any]:
    for first in range(0, keys, _LOAD_BATCH):
        await keyspace.transact([], [Put(key(number), VALUE) for number in range(first, first + _LOAD_BATCH)])
    return {}


async def start(keyspace: Keyspace) -> dict[str, Any]:
    """Answer once, then wait for the end of the input, so that others can look at the process."""
    assert await keyspace.get(key(0)) is not None
    print(json.dumps({"up": time.time()}), flush=True)
    await trio.to_thread.run_sync(sys.stdin.read)
    return {}


async def main(folder: str, action: str, *numbers: str) -> None:
    actions: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {
        "put": put,
        "transact": transact,
        "get": get,
        "watch": watch,
        "load": load,
        "start": start,
    }
    async with SqliteStorage(Path(folder)) as storage, Keyspace.open(storage) as keyspace:
        if action in ("put", "transact", "watch"):
            await trio.sleep(IDLE_SECONDS)
        result = await actions[action](keyspace, *map(int, numbers))
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    os.umask(0o077)
    trio.run(main, *sys.argv[1:])
