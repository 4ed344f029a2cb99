"""Reading and writing through the keyspace: keys, conflicts, transactions, limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from nanocloud.errors import (
    CompactedError,
    ConflictError,
    FutureRevisionError,
    InvalidError,
    LimitExceededError,
    NotFoundError,
)
from nanocloud.keyspace import Compare, Delete, Entry, Keyspace, Put, keys
from nanocloud.storage import SqliteStorage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def keyspace(tmp_path: Path) -> AsyncIterator[Keyspace]:
    async with SqliteStorage(tmp_path / "keyspace") as storage, Keyspace.open(storage) as opened:
        yield opened


async def names(keyspace: Keyspace, *prefix: str, **options: Any) -> list[str]:
    return ["/".join(entry.key) for entry in (await keyspace.list(prefix, **options)).entries]


async def test_put_answers_with_the_entry_that_get_finds(keyspace: Keyspace) -> None:
    made = await keyspace.put(("a", "b"), b"1")
    assert made == Entry(("a", "b"), b"1", create_revision=1, mod_revision=1, version=1, expires_at=None)
    assert await keyspace.get(("a", "b")) == made
    assert await keyspace.get(("a",)) is None
    changed = await keyspace.put(("a", "b"), b"2")
    assert (changed.create_revision, changed.mod_revision, changed.version) == (1, 2, 2)
    assert await keyspace.get(("a", "b"), revision=1) == made
    assert keyspace.revision == 2


async def test_a_prefix_ends_at_a_segment(keyspace: Keyspace) -> None:
    for key in (
        ("ns", "prod", "a"),
        ("ns", "prod2", "a"),
        ("ns", "prod"),
        ("ns", "pro"),
        ("ns", "prod\x01"),
        ("nsprod",),
    ):
        await keyspace.put(key, b"")
    assert await names(keyspace, "ns", "prod") == ["ns/prod", "ns/prod/a"]
    assert await names(keyspace, "ns") == ["ns/pro", "ns/prod", "ns/prod/a", "ns/prod\x01", "ns/prod2/a"]
    assert len(await names(keyspace)) == 6


async def test_segments_may_be_empty_and_any_text(keyspace: Keyspace) -> None:
    for key in (("registry", "core", "nodes", "", "n1"), ("registry", "core", "nodes", "ns", "n1"), ("ü", "日本", "/")):
        await keyspace.put(key, b"x")
        assert (await keyspace.get(key)) is not None
    assert await names(keyspace, "registry", "core", "nodes", "") == ["registry/core/nodes//n1"]


segments = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=6)
some_keys = st.lists(segments, min_size=1, max_size=4).map(tuple)


@given(some_keys, some_keys)
def test_encoded_keys_sort_as_tuples_and_come_back(one: keys.Key, other: keys.Key) -> None:
    assert keys.decode(keys.encode(one)) == one
    assert (keys.encode(one) < keys.encode(other)) == (one < other)
    start, end = keys.prefix_range(one)
    assert end is not None
    assert (start <= keys.encode(other) < end) == (other[: len(one)] == one)
    assert (keys.after(one) <= keys.encode(other)) == (one < other)


@pytest.mark.parametrize(
    "key",
    [(), ("a\x00b",), ("a" * 254,), ("a",) * 17, ("\ud800",), "a string", ("a", 1), ["a"], None],
    ids=repr,
)
async def test_what_is_no_key_is_refused(keyspace: Keyspace, key: Any) -> None:
    with pytest.raises(InvalidError, match="key"):
        await keyspace.put(key, b"")
    with pytest.raises(InvalidError):
        await keyspace.get(key)
    if key != ():
        with pytest.raises(InvalidError):
            await keyspace.list(key)
        with pytest.raises(InvalidError):
            async with keyspace.watch(key, after=0):
                pass


async def test_expect_guards_a_write(keyspace: Keyspace) -> None:
    await keyspace.put(("a",), b"1", expect=0)
    with pytest.raises(ConflictError) as error:
        await keyspace.put(("a",), b"2", expect=0)
    assert (error.value.key, error.value.expected, error.value.actual) == ("/a", 0, 1)
    await keyspace.put(("a",), b"2", expect=1)
    with pytest.raises(ConflictError):
        await keyspace.delete(("a",), expect=1)
    assert await keyspace.delete(("a",), expect=2) == 3
    with pytest.raises(ConflictError):
        await keyspace.put(("a",), b"3", expect=2)
    with pytest.raises(NotFoundError, match="/a"):
        await keyspace.delete(("a",))
    assert keyspace.revision == 3


async def test_contended_counters_lose_no_increment(keyspace: Keyspace) -> None:
    await keyspace.put(("n",), b"0")

    async def increment() -> None:
        for _ in range(10):
            while True:
                entry = await keyspace.get(("n",))
                assert entry is not None
                try:
                    await keyspace.put(("n",), b"%d" % (int(entry.value) + 1), expect=entry.mod_revision)
                    break
                except ConflictError:
                    pass

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(increment)
    entry = await keyspace.get(("n",))
    assert entry is not None
    assert (entry.value, entry.version) == (b"80", 81)


async def test_a_transaction_changes_all_its_keys_or_none(keyspace: Keyspace) -> None:
    await keyspace.put(("old",), b"")
    moved = await keyspace.transact(
        [Compare(("old",), 1), Compare(("new",), 0)], [Delete(("old",)), Put(("new",), b"1"), Put(("log", "1"), b"")]
    )
    assert moved == 2
    assert await names(keyspace) == ["log/1", "new"]
    with pytest.raises(ConflictError) as error:
        await keyspace.transact([Compare(("new",), 2), Compare(("old",), 1)], [Put(("old",), b""), Delete(("new",))])
    assert (error.value.key, error.value.expected, error.value.actual) == ("/old", 1, 0)
    assert await names(keyspace) == ["log/1", "new"]
    assert await keyspace.transact([], [Delete(("old",))]) == 2


async def test_a_transaction_with_a_key_twice_is_refused(keyspace: Keyspace) -> None:
    with pytest.raises(InvalidError, match="twice"):
        await keyspace.transact([], [Put(("a",), b""), Delete(("a",))])


async def test_limits_are_held(keyspace: Keyspace) -> None:
    limit = 1_536 * 1024
    await keyspace.put(("a",), b"x" * limit)
    with pytest.raises(LimitExceededError, match=f"{limit + 1} bytes; at most {limit}"):
        await keyspace.put(("a",), b"x" * (limit + 1))
    with pytest.raises(LimitExceededError, match="at most 512"):
        await keyspace.transact([], [Put((str(number),), b"") for number in range(513)])
    with pytest.raises(InvalidError, match="must be bytes"):
        await keyspace.put(("a",), "text")  # type: ignore[arg-type]
    for ttl in (0, -1.0, float("inf"), float("nan")):
        with pytest.raises(InvalidError, match="time to live"):
            await keyspace.put(("a",), b"", ttl_seconds=ttl)
    with pytest.raises(InvalidError, match="limit"):
        await keyspace.list((), limit=0)
    assert keyspace.revision == 1


async def test_the_longest_key_is_stored(keyspace: Keyspace) -> None:
    key = ("\U0001f600" * 253,) * 16
    await keyspace.put(key, b"1")
    assert (await keyspace.list(key)).entries[0].key == key


async def test_pages_of_one_revision_add_up_to_the_list(keyspace: Keyspace) -> None:
    for number in range(25):
        await keyspace.put(("a", f"{number:02}"), b"")
    whole = await keyspace.list(("a",))
    seen: list[Entry] = []
    page = await keyspace.list(("a",), limit=10)
    while True:
        seen += page.entries
        if not page.more:
            break
        await keyspace.put(("a", "00 new"), b"")
        await keyspace.delete(("a", f"{len(seen):02}"))
        page = await keyspace.list(("a",), after=seen[-1].key, limit=10, revision=whole.revision)
    assert tuple(seen) == whole.entries


async def test_after_a_key_before_the_prefix_begins_at_the_prefix(keyspace: Keyspace) -> None:
    await keyspace.put(("a",), b"")
    await keyspace.put(("b", "1"), b"")
    assert await names(keyspace, "b", after=("a",)) == ["b/1"]
    assert await names(keyspace, "b", after=("b", "1")) == []
    assert await names(keyspace, "a", after=("b",)) == []


async def test_compacted_history_is_refused(keyspace: Keyspace) -> None:
    for _ in range(5):
        await keyspace.put(("a",), b"")
    await keyspace.compact(3)
    await keyspace.compact(3)
    assert keyspace.compacted == 3
    assert (await keyspace.get(("a",), revision=3)) is not None
    with pytest.raises(CompactedError):
        await keyspace.list((), revision=2)
    with pytest.raises(FutureRevisionError):
        await keyspace.compact(6)
    with pytest.raises(FutureRevisionError):
        await keyspace.get(("a",), revision=6)


async def test_only_the_last_revisions_are_kept(tmp_path: Path) -> None:
    async with SqliteStorage(tmp_path) as storage:
        async with Keyspace.open(storage, keep=100) as keyspace:
            async with trio.open_nursery() as nursery:
                for number in range(500):
                    nursery.start_soon(keyspace.put, ("a", str(number)), b"")
            with trio.fail_after(10):
                while keyspace.compacted < 390:  # the worker tells nobody
                    await trio.lowlevel.checkpoint()
            assert keyspace.compacted <= 400
            assert len((await keyspace.list(("a",))).entries) == 500
        compacted = (await storage.info()).compacted
        async with Keyspace.open(storage, keep=100) as keyspace:
            assert (keyspace.revision, keyspace.compacted) == (500, compacted)


async def test_entries_do_not_show_their_value(keyspace: Keyspace) -> None:
    assert "hunter2" not in repr(await keyspace.put(("a",), b"hunter2"))
    assert "hunter2" not in repr(Put(("a",), b"hunter2"))
