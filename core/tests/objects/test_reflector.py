"""How controllers learn of objects: all that are there, then every change, also over compaction."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from nanocloud.models.core import CONFIG_MAP
from nanocloud.models.meta import name_of
from nanocloud.objects import ObjectStore, WatchEvent, WatchType
from nanocloud.objects.reflector import reflect
from nanocloud.testkit.objects import config_map


@pytest.fixture
def told() -> list[tuple[WatchType, str]]:
    return []


async def settled() -> None:
    await wait_all_tasks_blocked(0.02)


async def test_what_is_there_comes_first_then_every_change(
    store: ObjectStore, told: list[tuple[WatchType, str]]
) -> None:
    await store.create(CONFIG_MAP, config_map("a"))
    lists = 0

    def handle(event: WatchEvent) -> None:
        told.append((event.type, name_of(event.object)))

    def listed() -> None:
        nonlocal lists
        lists += 1
        assert told == [(WatchType.ADDED, "a")]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: reflect(store, CONFIG_MAP, handle, listed=listed))
        await settled()
        await store.create(CONFIG_MAP, config_map("b"))
        await store.update(CONFIG_MAP, config_map("a", x="1"))
        await store.delete(CONFIG_MAP, "default", "b")
        await settled()
        nursery.cancel_scope.cancel()
    assert told[1:] == [(WatchType.ADDED, "b"), (WatchType.MODIFIED, "a"), (WatchType.DELETED, "b")]
    assert lists == 1


async def test_a_watch_that_is_compacted_lists_again_and_tells_what_went_meanwhile(
    store: ObjectStore, told: list[tuple[WatchType, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watch begins only after what it would begin with was forgotten."""
    for name in ("goes", "returns", "stays"):
        await store.create(CONFIG_MAP, config_map(name))
    interfered = False

    async def meanwhile() -> None:
        await store.delete(CONFIG_MAP, "default", "goes")
        await store.delete(CONFIG_MAP, "default", "returns")
        await store.create(CONFIG_MAP, config_map("returns"))
        await store.create(CONFIG_MAP, config_map("new"))
        await store.keyspace.compact(store.revision)

    original_list = store.list

    async def list_then(*args: object, **kwargs: object) -> object:
        nonlocal interfered
        page = await original_list(*args, **kwargs)  # type: ignore[arg-type]
        if not interfered:
            interfered = True
            await meanwhile()
        return page

    monkeypatch.setattr(store, "list", list_then)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reflect, store, CONFIG_MAP, lambda event: told.append((event.type, name_of(event.object))))
        await settled()
        await store.delete(CONFIG_MAP, "default", "stays")
        await settled()
        nursery.cancel_scope.cancel()
    assert told == [
        (WatchType.ADDED, "goes"),
        (WatchType.ADDED, "returns"),
        (WatchType.ADDED, "stays"),
        (WatchType.DELETED, "goes"),
        (WatchType.DELETED, "returns"),
        (WatchType.ADDED, "new"),
        (WatchType.ADDED, "returns"),
        (WatchType.ADDED, "stays"),
        (WatchType.DELETED, "stays"),
    ]
