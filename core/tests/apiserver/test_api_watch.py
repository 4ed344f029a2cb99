"""Watch streams, as a client sees them."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from nanocloud.apiserver import watches
from nanocloud.client.api import ApiError
from nanocloud.errors import UnavailableError
from nanocloud.keyspace import Keyspace
from nanocloud.models.builtin import builtin_registry
from nanocloud.models.core import CONFIG_MAP
from nanocloud.objects import ObjectStore
from nanocloud.testkit import FakeStorage
from nanocloud.testkit.api import ApiClient, Event
from nanocloud.testkit.objects import config_map

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


def told(event: Event) -> tuple[str, str]:
    return event.type, event.object["metadata"].get("name", "")


async def test_without_a_revision_what_is_there_comes_first(api: ApiClient, store: ObjectStore) -> None:
    await store.create(CONFIG_MAP, config_map("a"))
    async with api.watch(CONFIG_MAP) as events:
        assert told(await anext(events)) == ("ADDED", "a")
        await store.create(CONFIG_MAP, config_map("b"))
        await store.delete(CONFIG_MAP, "default", "a")
        assert told(await anext(events)) == ("ADDED", "b")
        gone = await anext(events)
        assert told(gone) == ("DELETED", "a")
        assert gone.object["metadata"]["resourceVersion"] == str(store.revision)


async def test_from_a_revision_on_nothing_is_missed_or_told_twice(api: ApiClient, store: ObjectStore) -> None:
    await store.create(CONFIG_MAP, config_map("before"))
    start = str(store.revision)

    async def write(writer: int) -> None:
        for index in range(10):
            await store.create(CONFIG_MAP, config_map(f"w{writer}-{index}"))

    versions = []
    async with api.watch(CONFIG_MAP, after=start) as events, trio.open_nursery() as nursery:
        for writer in range(4):
            nursery.start_soon(write, writer)
        for _ in range(40):
            versions.append(int((await anext(events)).object["metadata"]["resourceVersion"]))
    assert versions == sorted(set(versions))


async def test_an_object_that_begins_to_match_is_added_and_one_that_ceases_deleted(
    api: ApiClient, store: ObjectStore
) -> None:
    made = await store.create(CONFIG_MAP, config_map("a", labels={"side": "left"}))
    async with api.watch(CONFIG_MAP, after=str(store.revision), query={"labelSelector": "side=right"}) as events:
        for side in ("right", "left"):
            made["metadata"]["labels"] = {"side": side}
            made = await store.update(CONFIG_MAP, made)
        await store.create(CONFIG_MAP, config_map("b", labels={"side": "right"}))
        assert told(await anext(events)) == ("ADDED", "a")
        ceased = await anext(events)
        assert told(ceased) == ("DELETED", "a")
        assert ceased.object["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
        assert told(await anext(events)) == ("ADDED", "b")


async def test_a_forgotten_revision_is_told_by_one_error_event(
    api: ApiClient, store: ObjectStore, keyspace: Keyspace
) -> None:
    await store.create(CONFIG_MAP, config_map("a"))
    await keyspace.compact(store.revision)
    async with api.watch(CONFIG_MAP, after="1") as events:
        with pytest.raises(ApiError, match=r"too old resource version: 1 \(") as caught:
            await anext(events)
        assert (caught.value.code, caught.value.cause["reason"]) == (410, "Expired")
        assert [event async for event in events] == []


async def test_a_revision_to_come_is_refused(api: ApiClient) -> None:
    with pytest.raises(ApiError) as caught:
        async with api.watch(CONFIG_MAP, after="99999"):
            pass
    assert (caught.value.code, caught.value.cause["reason"]) == (504, "Timeout")


async def test_bookmarks_tell_progress_of_others(
    api: ApiClient, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "BOOKMARK_SECONDS", 0.01)
    start = str(store.revision)
    async with api.watch(CONFIG_MAP, after=start, query={"allowWatchBookmarks": "true"}) as events:
        await store.create(CONFIG_MAP, config_map("a", namespace="kube-system"))
        while True:
            event = await anext(events)
            assert event.type == "BOOKMARK"
            assert event.object["kind"] == "ConfigMap"
            if event.object["metadata"]["resourceVersion"] == str(store.revision):
                break
        await store.create(CONFIG_MAP, config_map("b"))
        while (event := await anext(events)).type == "BOOKMARK":
            pass
        assert told(event) == ("ADDED", "b")


async def test_initial_events_end_with_a_marked_bookmark(api: ApiClient, store: ObjectStore) -> None:
    await store.create(CONFIG_MAP, config_map("a"))
    query = {"sendInitialEvents": "true", "allowWatchBookmarks": "true"}
    async with api.watch(CONFIG_MAP, query=query | {"resourceVersionMatch": "NotOlderThan"}) as events:
        assert told(await anext(events)) == ("ADDED", "a")
        mark = await anext(events)
        assert mark.type == "BOOKMARK"
        assert mark.object["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    with pytest.raises(ApiError, match="requires resourceVersionMatch=NotOlderThan"):
        async with api.watch(CONFIG_MAP, query=query):
            pass


async def test_only_the_first_table_has_columns(api: ApiClient, store: ObjectStore) -> None:
    await store.create(CONFIG_MAP, config_map("a"))
    async with api.watch(CONFIG_MAP, headers={"Accept": TABLE}) as events:
        await store.create(CONFIG_MAP, config_map("b"))
        first, second = await anext(events), await anext(events)
    assert [column["name"] for column in first.object["columnDefinitions"]] == ["Name", "Data", "Age"]
    assert second.object["columnDefinitions"] is None
    assert second.object["rows"][0]["cells"][0] == "b"


async def test_a_stream_ends_cleanly_in_time_and_when_the_server_stops(api: ApiClient) -> None:
    async with api.watch(CONFIG_MAP, query={"timeoutSeconds": "1"}) as events:
        assert [event async for event in events] == []
    async with api.watch(CONFIG_MAP) as events:
        api.closing.set()
        assert [event async for event in events] == []


async def test_a_stream_ends_when_its_reader_leaves(api: ApiClient, store: ObjectStore) -> None:
    async with api.watch(CONFIG_MAP):
        await trio.testing.wait_all_tasks_blocked()
    assert store.keyspace._hub._watchers == {}


async def test_a_storage_that_does_not_answer_ends_the_stream_with_a_word() -> None:
    async with FakeStorage() as storage, Keyspace.open(storage) as keyspace:
        store = ObjectStore(keyspace, builtin_registry(), seal=lambda data, _: data, unseal=lambda data, _: data)
        await store.ensure_namespaces()
        storage.calls.fail("info", UnavailableError("input/output error"))
        async with ApiClient.over(store).watch(CONFIG_MAP, after="1") as events:
            with pytest.raises(ApiError, match="input/output error") as error:
                await anext(events)
        assert error.value.code == 503
