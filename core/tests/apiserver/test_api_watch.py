"""Watch streams, driven as a server drives them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
import trio
import trio.testing
from starlette.types import ASGIApp, Message

from nanocloud.apiserver import watches
from nanocloud.keyspace import Keyspace
from nanocloud.models.core import CONFIG_MAP
from nanocloud.models.meta import Object
from nanocloud.objects import ObjectStore

MAPS = "/api/v1/namespaces/default/configmaps"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


class Stream:
    """One watch: events as they come."""

    def __init__(self) -> None:
        self.closing = trio.Event()
        self._send, self._receive = trio.open_memory_channel[Message](100)
        self._lines: list[dict[str, Any]] = []
        self._rest = b""
        self.status = 0

    async def send(self, message: Message) -> None:
        await self._send.send(message)

    async def next(self) -> dict[str, Any]:
        """The next event; EOFError when the server ended the stream."""
        with trio.fail_after(10):
            while not self._lines:
                message = await self._receive.receive()
                if message["type"] == "http.response.start":
                    self.status = message["status"]
                    continue
                *lines, self._rest = (self._rest + message["body"]).split(b"\n")
                self._lines += [orjson.loads(line) for line in lines]
                if not self._lines and not message.get("more_body"):
                    if self._rest:
                        return dict(orjson.loads(self._rest))
                    raise EOFError
        return self._lines.pop(0)


@asynccontextmanager
async def watching(app: ASGIApp, path: str, *, accept: str = "application/json", **query: str) -> AsyncIterator[Stream]:
    stream, gone = Stream(), trio.Event()

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": urlencode({"watch": "true"} | query).encode(),
        "headers": [(b"authorization", b"Bearer admin"), (b"accept", accept.encode())],
        "state": {"closing": stream.closing},
    }
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app, scope, receive, stream.send)
        yield stream
        gone.set()
        nursery.cancel_scope.deadline = trio.current_time() + 5


def config_map(name: str, **labels: str) -> Object:
    return {"metadata": {"name": name, "namespace": "default", "labels": labels}}


def told(event: dict[str, Any]) -> tuple[str, str]:
    return event["type"], event["object"]["metadata"].get("name", "")


async def test_without_a_revision_what_is_there_comes_first(app: ASGIApp, store: ObjectStore) -> None:
    await store.create(CONFIG_MAP, config_map("a"))
    async with watching(app, MAPS) as stream:
        assert told(await stream.next()) == ("ADDED", "a")
        await store.create(CONFIG_MAP, config_map("b"))
        await store.delete(CONFIG_MAP, "default", "a")
        assert told(await stream.next()) == ("ADDED", "b")
        gone = await stream.next()
        assert told(gone) == ("DELETED", "a")
        assert gone["object"]["metadata"]["resourceVersion"] == str(store.revision)
    assert stream.status == 200


async def test_from_a_revision_on_nothing_is_missed_or_told_twice(app: ASGIApp, store: ObjectStore) -> None:
    await store.create(CONFIG_MAP, config_map("before"))
    start = str(store.revision)

    async def write(writer: int) -> None:
        for index in range(10):
            await store.create(CONFIG_MAP, config_map(f"w{writer}-{index}"))

    versions = []
    async with watching(app, MAPS, resourceVersion=start) as stream, trio.open_nursery() as nursery:
        for writer in range(4):
            nursery.start_soon(write, writer)
        for _ in range(40):
            versions.append(int((await stream.next())["object"]["metadata"]["resourceVersion"]))
    assert versions == sorted(set(versions))


async def test_an_object_that_begins_to_match_is_added_and_one_that_ceases_deleted(
    app: ASGIApp, store: ObjectStore
) -> None:
    made = await store.create(CONFIG_MAP, config_map("a", side="left"))
    async with watching(app, MAPS, labelSelector="side=right", resourceVersion=str(store.revision)) as stream:
        for side in ("right", "left"):
            made["metadata"]["labels"] = {"side": side}
            made = await store.update(CONFIG_MAP, made)
        await store.create(CONFIG_MAP, config_map("b", side="right"))
        assert told(await stream.next()) == ("ADDED", "a")
        ceased = await stream.next()
        assert told(ceased) == ("DELETED", "a")
        assert ceased["object"]["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
        assert told(await stream.next()) == ("ADDED", "b")


async def test_a_forgotten_revision_is_told_by_one_error_event(
    app: ASGIApp, store: ObjectStore, keyspace: Keyspace
) -> None:
    await store.create(CONFIG_MAP, config_map("a"))
    await keyspace.compact(store.revision)
    async with watching(app, MAPS, resourceVersion="1") as stream:
        event = await stream.next()
        assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
        assert "too old resource version: 1 (" in event["object"]["message"]
        with pytest.raises(EOFError):
            await stream.next()
    assert stream.status == 200


async def test_a_revision_to_come_is_refused(app: ASGIApp) -> None:
    async with watching(app, MAPS, resourceVersion="99999") as stream:
        assert (await stream.next())["reason"] == "Timeout"
    assert stream.status == 504


async def test_bookmarks_tell_progress_of_others(
    app: ASGIApp, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "BOOKMARK_SECONDS", 0.01)
    start = str(store.revision)
    async with watching(app, MAPS, resourceVersion=start, allowWatchBookmarks="true") as stream:
        await store.create(CONFIG_MAP, {"metadata": {"name": "a", "namespace": "kube-system"}})
        while True:
            event = await stream.next()
            assert event["type"] == "BOOKMARK"
            assert event["object"]["kind"] == "ConfigMap"
            if event["object"]["metadata"]["resourceVersion"] == str(store.revision):
                break
        await store.create(CONFIG_MAP, config_map("b"))
        while (event := await stream.next())["type"] == "BOOKMARK":
            pass
        assert told(event) == ("ADDED", "b")


async def test_initial_events_end_with_a_marked_bookmark(app: ASGIApp, store: ObjectStore) -> None:
    await store.create(CONFIG_MAP, config_map("a"))
    query = {"sendInitialEvents": "true", "allowWatchBookmarks": "true"}
    async with watching(app, MAPS, resourceVersionMatch="NotOlderThan", **query) as stream:
        assert told(await stream.next()) == ("ADDED", "a")
        mark = await stream.next()
        assert mark["type"] == "BOOKMARK"
        assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    async with watching(app, MAPS, **query) as stream:
        assert (await stream.next())["reason"] == "BadRequest"


async def test_only_the_first_table_has_columns(app: ASGIApp, store: ObjectStore) -> None:
    await store.create(CONFIG_MAP, config_map("a"))
    async with watching(app, MAPS, accept=TABLE) as stream:
        await store.create(CONFIG_MAP, config_map("b"))
        first, second = await stream.next(), await stream.next()
    assert [column["name"] for column in first["object"]["columnDefinitions"]] == ["Name", "Data", "Age"]
    assert second["object"]["columnDefinitions"] is None
    assert second["object"]["rows"][0]["cells"][0] == "b"


async def test_a_stream_ends_cleanly_in_time_and_when_the_server_stops(app: ASGIApp) -> None:
    async with watching(app, MAPS, timeoutSeconds="1") as stream:
        with pytest.raises(EOFError):
            await stream.next()
    async with watching(app, MAPS) as stream:
        stream.closing.set()
        with pytest.raises(EOFError):
            await stream.next()


async def test_a_stream_ends_when_its_reader_leaves(app: ASGIApp, store: ObjectStore) -> None:
    async with watching(app, MAPS):
        await trio.testing.wait_all_tasks_blocked()
    assert store.keyspace._hub._watchers == {}
