"""The order of keys holds whatever their length, and nothing is lost where they do not fit into LMDB's 511 bytes."""

from __future__ import annotations

import random
from pathlib import Path

from nanocloud.providers.storage import MAX_KEY_BYTES, RecordDelete
from stores import commit, history, put

from nanocloud_storage_lmdb.places import MAX_PLACE_BYTES, first_place, group_of, last_place, place_of, short_key
from nanocloud_storage_lmdb.storage import LmdbStorage


def keys(seed: int, count: int) -> list[bytes]:
    """Keys that are hard to tell apart: few different bytes, many about as long as fits."""
    dice = random.Random(seed)
    heads = [b"", b"a" * 460, b"a" * 468, b"\x00" * 232, b"\xff" * 465]
    tails = (bytes(dice.choices((0, 1, 2, 97, 255), k=dice.randrange(12))) for _ in range(count))
    return sorted({dice.choice(heads) + tail for tail in tails} | {b"a" * MAX_KEY_BYTES, b"\x00" * MAX_KEY_BYTES})


def test_places_are_in_the_order_of_the_keys_and_fit() -> None:
    every = keys(1, 3000)
    groups = [group_of(place_of(key)) for key in every]
    assert groups == sorted(groups)
    places = [place_of(key) for key in every]
    assert len(set(places)) == len(every)
    # With what follows a place, the longest is as much as LMDB takes.
    assert max(map(len, places)) == MAX_PLACE_BYTES == 511 - 8
    assert {short_key(place) for place in places} - {None} <= set(every)
    # No place is the head of another, so what follows one does not disturb the order.
    assert not any(later.startswith(place) for place, later in zip(sorted(places), sorted(places)[1:], strict=False))


def test_borders_lie_where_the_key_is() -> None:
    every = keys(2, 400)
    for border in every[::7]:
        assert all(place_of(key) >= first_place(border) for key in every if key >= border)
        assert all(place_of(key) < last_place(border) for key in every if key < border)


async def test_ranges_of_long_keys_are_in_order(tmp_path: Path) -> None:
    every, dice = keys(3, 300), random.Random(4)
    async with LmdbStorage(tmp_path / "store") as storage:
        for key in dice.sample(every, len(every)):
            await put(storage, key, b"old")
        gone = set(dice.sample(every, 40))
        for key in gone:
            await commit(storage, RecordDelete(key))
        before = (await storage.info()).revision
        await put(storage, b"a" * 500, b"new")
        left = [key for key in every if key not in gone]
        for _ in range(200):
            start, end = sorted(dice.sample(every, 2))
            limit = dice.choice((None, 1, 5))
            page = await storage.range(start, end, limit=limit, revision=before)
            there = [key for key in left if start <= key < end]
            assert [record.key for record in page.records] == there[:limit]
            assert page.more == (limit is not None and len(there) > limit)
        assert {change.key for change in await history(storage)} == {*every, b"a" * 500}
        await storage.compact(before)
        page = await storage.range(b"", None, revision=before)
        assert [record.key for record in page.records] == left
