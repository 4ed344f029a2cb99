"""The object store over a real keyspace."""

from __future__ import annotations

import math

import pytest
import trio

from nanocloud.errors import BadRequestError, CompactedError, ForbiddenError, InvalidError
from nanocloud.keyspace import Keyspace
from nanocloud.models.bundle import ADDRESS_FINALIZER, BUNDLE, UNINSTALL_FINALIZER
from nanocloud.models.core import CONFIG_MAP, EVENT, NAMESPACE, SECRET
from nanocloud.models.kinds import ResourceKind
from nanocloud.models.meta import Object, name_of, set_condition
from nanocloud.models.pod import POD
from nanocloud.objects import (
    EventRecorder,
    ObjectExistsError,
    ObjectNotFoundError,
    ObjectStore,
    PreconditionError,
    StaleObjectError,
    WatchEvent,
)
from nanocloud.testkit.objects import bundle, config_map, pod, secret


async def test_create_gives_identity_and_the_revision_it_was_written_at(store: ObjectStore) -> None:
    made = await store.create(CONFIG_MAP, config_map("a", x="1"))
    meta = made["metadata"]
    assert meta["uid"]
    assert meta["creationTimestamp"].endswith("Z")
    assert meta["resourceVersion"] == str(store.revision)
    assert await store.get(CONFIG_MAP, "default", "a") == made


async def test_create_refuses_a_taken_name_an_unknown_namespace_and_a_revision(store: ObjectStore) -> None:
    made = await store.create(CONFIG_MAP, config_map("a"))
    with pytest.raises(ObjectExistsError, match='configmaps "a" already exists'):
        await store.create(CONFIG_MAP, config_map("a"))
    with pytest.raises(ObjectNotFoundError, match='namespaces "nope" not found'):
        await store.create(CONFIG_MAP, config_map("a", namespace="nope"))
    made["metadata"]["name"] = "b"
    with pytest.raises(BadRequestError, match="resourceVersion should not be set"):
        await store.create(CONFIG_MAP, made)


async def test_generated_names_differ(store: ObjectStore) -> None:
    names = set()
    for _ in range(5):
        made = await store.create(CONFIG_MAP, {"metadata": {"generateName": "job-", "namespace": "default"}})
        names.add(name_of(made))
    assert len(names) == 5
    assert all(name.startswith("job-") for name in names)


async def test_a_write_that_changes_nothing_keeps_the_revision(store: ObjectStore) -> None:
    made = await store.create(CONFIG_MAP, config_map("a", x="1"))
    before = store.revision
    made["metadata"]["labels"] = {}
    assert (await store.update(CONFIG_MAP, made))["metadata"]["resourceVersion"] == str(before)
    assert store.revision == before


async def test_a_stale_write_is_refused_with_the_sentence_clients_know(store: ObjectStore) -> None:
    made = await store.create(CONFIG_MAP, config_map("a", x="1"))
    await store.update(CONFIG_MAP, made | {"data": {"x": "2"}})
    with pytest.raises(StaleObjectError, match="the object has been modified; please apply your changes"):
        await store.update(CONFIG_MAP, made | {"data": {"x": "3"}})


async def test_of_racing_writers_with_one_revision_exactly_one_wins(store: ObjectStore) -> None:
    made = await store.create(CONFIG_MAP, config_map("a", x="0"))
    won: list[int] = []

    async def write(number: int) -> None:
        try:
            await store.update(CONFIG_MAP, made | {"data": {"x": str(number + 1)}})
        except StaleObjectError:
            return
        won.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(write, number)
    assert len(won) == 1


async def test_modify_loses_no_update(store: ObjectStore) -> None:
    await store.create(CONFIG_MAP, config_map("a", x="0"))

    def grow(obj: Object) -> None:
        obj["data"]["x"] = str(int(obj["data"]["x"]) + 1)

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(store.modify, CONFIG_MAP, "default", "a", grow)
    assert (await store.get(CONFIG_MAP, "default", "a"))["data"]["x"] == "10"


async def test_many_who_modify_one_object_take_turns(store: ObjectStore) -> None:
    await store.create(CONFIG_MAP, config_map("a", x=""))
    began: list[int] = []

    async def add(number: int) -> None:
        def change(obj: Object) -> None:
            began.append(number)
            obj["data"]["x"] += f"{number} "

        await store.modify(CONFIG_MAP, "default", "a", change)

    async with trio.open_nursery() as nursery:
        for number in range(300):  # more than anybody tries again
            nursery.start_soon(add, number)
        leaves = trio.CancelScope(deadline=-math.inf)
        with leaves:
            await add(1000)
    assert len(began) == 300  # nobody worked for nothing
    assert (await store.get(CONFIG_MAP, "default", "a"))["data"]["x"].split() == list(map(str, began))


async def test_generation_grows_with_the_spec_only(store: ObjectStore) -> None:
    made = await store.create(BUNDLE, bundle("web"))
    assert made["metadata"]["generation"] == 1
    set_condition(made, "Ready", True, reason="Started")
    made = await store.update(BUNDLE, made, subresource="status")
    assert made["metadata"]["generation"] == 1
    made["metadata"]["labels"] = {"a": "b"}
    made = await store.update(BUNDLE, made)
    assert made["metadata"]["generation"] == 1
    made["spec"]["start"] = False
    assert (await store.update(BUNDLE, made))["metadata"]["generation"] == 2


async def test_spec_and_status_are_written_apart(store: ObjectStore) -> None:
    made = await store.create(BUNDLE, bundle("web"))
    made["spec"]["start"] = False
    made["status"] = {"phase": "Running"}
    after_status = await store.update(BUNDLE, made, subresource="status")
    assert after_status["spec"]["start"] is True
    assert after_status["status"]["phase"] == "Running"
    after_status["spec"]["start"] = False
    after_status["status"] = {}
    after_main = await store.update(BUNDLE, after_status)
    assert after_main["status"]["phase"] == "Running"
    assert after_main["spec"]["start"] is False


async def test_immutable_fields_stay(store: ObjectStore) -> None:
    made = await store.create(BUNDLE, bundle("web"))
    made["spec"]["service"] = "other"
    with pytest.raises(InvalidError, match=r"spec\.service: cannot be changed"):
        await store.update(BUNDLE, made)


async def test_a_finalizer_holds_a_deleted_object_until_it_is_taken_off(store: ObjectStore) -> None:
    made = await store.create(BUNDLE, bundle("web"))
    assert made["metadata"]["finalizers"] == [UNINSTALL_FINALIZER, ADDRESS_FINALIZER]
    marked, gone = await store.delete(BUNDLE, "default", "web")
    assert not gone
    assert marked["metadata"]["deletionTimestamp"]
    again, gone = await store.delete(BUNDLE, "default", "web")
    assert (again, gone) == (marked, False)
    marked["metadata"]["finalizers"] = [UNINSTALL_FINALIZER, "example.org/more"]
    with pytest.raises(InvalidError, match="no new finalizers"):
        await store.update(BUNDLE, marked)
    marked["metadata"]["finalizers"] = []
    await store.update(BUNDLE, marked)
    with pytest.raises(ObjectNotFoundError):
        await store.get(BUNDLE, "default", "web")


async def test_a_pod_gets_its_grace_and_goes_with_a_grace_of_zero(store: ObjectStore) -> None:
    await store.create(POD, pod("web-0"))
    marked, gone = await store.delete(POD, "default", "web-0")
    assert (gone, marked["metadata"]["deletionGracePeriodSeconds"]) == (False, 30)
    shorter, gone = await store.delete(POD, "default", "web-0", grace_seconds=5)
    assert (gone, shorter["metadata"]["deletionGracePeriodSeconds"]) == (False, 5)
    assert (await store.delete(POD, "default", "web-0"))[0] == shorter
    assert (await store.delete(POD, "default", "web-0", grace_seconds=0))[1]
    assert await store.find(POD, "default", "web-0") is None


async def test_delete_checks_identity(store: ObjectStore) -> None:
    made = await store.create(CONFIG_MAP, config_map("a"))
    with pytest.raises(PreconditionError, match="UID in precondition: other"):
        await store.delete(CONFIG_MAP, "default", "a", uid="other")
    with pytest.raises(PreconditionError, match="ResourceVersion in precondition: 1,"):
        await store.delete(CONFIG_MAP, "default", "a", resource_version=1)
    assert (await store.delete(CONFIG_MAP, "default", "a", uid=made["metadata"]["uid"]))[1]


async def test_permanent_namespaces_stay_and_a_terminating_one_takes_no_more(store: ObjectStore) -> None:
    with pytest.raises(ForbiddenError, match="may not be deleted"):
        await store.delete(NAMESPACE, "", "kube-system")
    await store.create(NAMESPACE, {"metadata": {"name": "shop"}})
    await store.delete(NAMESPACE, "", "shop")
    with pytest.raises(ForbiddenError, match="being terminated"):
        await store.create(CONFIG_MAP, config_map("a", namespace="shop"))


async def test_pages_are_of_one_revision(store: ObjectStore) -> None:
    for index in range(7):
        await store.create(CONFIG_MAP, config_map(f"c{index}", n=str(index)))
    page = await store.list(CONFIG_MAP, "default", limit=3)
    await store.delete(CONFIG_MAP, "default", "c5")
    await store.create(CONFIG_MAP, config_map("c9"))
    names = [name_of(obj) for obj in page.items]
    while page.after:
        page = await store.list(CONFIG_MAP, "default", limit=3, after=page.after, revision=page.revision)
        names += [name_of(obj) for obj in page.items]
    assert names == [f"c{index}" for index in range(7)]


async def test_a_limit_counts_what_matches(store: ObjectStore) -> None:
    for index in range(6):
        await store.create(CONFIG_MAP, config_map(f"c{index}", n=str(index % 2)))

    def odd(obj: Object) -> bool:
        return bool(obj["data"]["n"] == "1")

    page = await store.list(CONFIG_MAP, matches=odd, limit=2)
    assert [name_of(obj) for obj in page.items] == ["c1", "c3"]
    page = await store.list(CONFIG_MAP, matches=odd, limit=2, after=page.after, revision=page.revision)
    assert ([name_of(obj) for obj in page.items], page.after) == (["c5"], None)


async def follow(store: ObjectStore, kind: ResourceKind, count: int, after: int) -> list[WatchEvent]:
    found: list[WatchEvent] = []
    with trio.fail_after(5):
        async with store.watch(kind, "default", after=after) as events:
            async for event in events:
                found.append(event)
                if len(found) == count:
                    break
    return found


async def test_watch_tells_each_change_with_its_state(store: ObjectStore) -> None:
    start = store.revision
    made = await store.create(CONFIG_MAP, config_map("a", x="1"))
    await store.create(SECRET, secret("other"))
    changed = await store.update(CONFIG_MAP, made | {"data": {"x": "2"}})
    await store.delete(CONFIG_MAP, "default", "a")
    added, modified, deleted = await follow(store, CONFIG_MAP, 3, start)
    assert (added.type.value, added.object, added.previous) == ("ADDED", made, None)
    assert (modified.type.value, modified.object, modified.previous) == ("MODIFIED", changed, made)
    assert (deleted.type.value, deleted.object["data"]) == ("DELETED", {"x": "2"})
    assert int(deleted.object["metadata"]["resourceVersion"]) == deleted.revision > modified.revision


async def test_watch_from_a_forgotten_revision_says_so(store: ObjectStore, keyspace: Keyspace) -> None:
    for index in range(5):
        await store.create(CONFIG_MAP, config_map(f"c{index}"))
    await keyspace.compact(store.revision)
    with pytest.raises(CompactedError):
        async with store.watch(CONFIG_MAP, after=1):
            pass


async def test_secret_data_is_stored_sealed_and_bound_to_its_object(store: ObjectStore, keyspace: Keyspace) -> None:
    made = await store.create(SECRET, secret("db", password="hunter2"))
    assert made["data"] == {"password": "aHVudGVyMg=="}
    assert (made["type"], "stringData" in made) == ("Opaque", False)
    stored = (await keyspace.list(("registry", "core", "secrets"))).entries[0].value
    assert b"hunter2" not in stored
    assert b"aHVudGVyMg" not in stored
    assert await store.get(SECRET, "default", "db") == made


async def test_bad_fields_are_all_named(store: ObjectStore) -> None:
    wrong = bundle("web", start="no", options={"a": 5, "9 b": "x"}, extra=1)
    with pytest.raises(InvalidError) as caught:
        await store.create(BUNDLE, wrong)
    assert {cause.field for cause in caught.value.causes} == {"spec.start", "spec.options.a", "spec.extra"}
    with pytest.raises(InvalidError, match=r'spec\.options: "9 b" is not an option name'):
        await store.create(BUNDLE, bundle("web", options={"9 b": "x"}))


async def test_the_same_event_is_counted(store: ObjectStore) -> None:
    made = await store.create(BUNDLE, bundle("web"))
    recorder = EventRecorder(store, component="test")
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(lambda: recorder.record(made, reason="Started", message="up", type="Normal"))
    await recorder.record(made, reason="Started", message="another")
    events = (await store.list(EVENT, "default")).items
    assert sorted(event["count"] for event in events) == [1, 4]
    assert events[0]["involvedObject"]["uid"] == made["metadata"]["uid"]


async def test_dry_run_answers_and_writes_nothing(store: ObjectStore) -> None:
    await store.create(CONFIG_MAP, config_map("a", x="1"))
    before = store.revision
    await store.create(CONFIG_MAP, config_map("b"), dry_run=True)
    changed = await store.update(CONFIG_MAP, config_map("a", x="2"), dry_run=True)
    assert changed["data"] == {"x": "2"}
    await store.delete(CONFIG_MAP, "default", "a", dry_run=True)
    assert store.revision == before
