"""Emptying a deleted namespace."""

from __future__ import annotations

import trio

from nanocloud.models.bundle import BUNDLE
from nanocloud.models.core import CONFIG_MAP, NAMESPACE
from nanocloud.models.meta import is_deleting
from nanocloud.objects import EventRecorder, NamespaceController, ObjectStore
from nanocloud.testkit.objects import bundle, config_map


async def test_a_namespace_goes_after_everything_in_it(store: ObjectStore) -> None:
    await store.create(NAMESPACE, {"metadata": {"name": "shop"}})
    await store.create(CONFIG_MAP, config_map("c", namespace="shop"))
    made = await store.create(BUNDLE, bundle("b", namespace="shop"))
    start = store.revision
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(NamespaceController(store).run)
            await store.delete(NAMESPACE, "", "shop")
            async with store.watch(BUNDLE, "shop", after=start) as events:
                event = await events.__anext__()
            assert is_deleting(event.object)
            assert await store.find(NAMESPACE, "", "shop") is not None
            assert await EventRecorder(store).record(made, reason="Late", message="no") is None
            event.object["metadata"]["finalizers"] = []
            await store.update(BUNDLE, event.object)
            async with store.watch(NAMESPACE, after=start) as gone:
                async for change in gone:
                    if change.type.value == "DELETED":
                        break
            nursery.cancel_scope.cancel()
    assert (await store.list(CONFIG_MAP, "shop")).items == []
    assert await store.find(NAMESPACE, "", "shop") is None
