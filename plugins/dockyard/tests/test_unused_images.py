"""Images that nothing uses leave the disk; what is used, asked about, or built here stays."""

from __future__ import annotations

import hashlib
import math
import os
import threading

import pytest
import trio
import trio.testing

from nanocloud.errors import NotFoundError
from nanocloud.providers.image import Digest
from nanocloud_dockyard.collect import collect

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="layers keep owners and devices: needs root")


def reference(layout, tag="latest"):
    return f"oci:{layout}:{tag}"


def layer_folders(store):
    return sorted(path.name for path in (store / "layers").iterdir())


def diff_id(archive):
    return Digest("sha256:" + hashlib.sha256(bytes(archive)).hexdigest())


@pytest.mark.root
@needs_root
async def test_what_is_not_in_use_goes_and_the_rest_stays(open_dockyard, new_image, new_tar, layout, store):
    base, a, b = (bytes(new_tar().file(name)) for name in (b"base", b"a", b"b"))
    new_image.of(base, a).write_layout(layout, "a")
    new_image.of(base, b).write_layout(layout, "b")
    async with open_dockyard() as dockyard:
        first = await dockyard.ensure(await dockyard.resolve(reference(layout, "a")))
        second = await dockyard.ensure(await dockyard.resolve(reference(layout, "b")))
        assert await dockyard.collect({first.image.digest}) == [second.image.digest]
        assert layer_folders(store) == sorted(diff_id(x).removeprefix("sha256:") for x in (base, a))
        assert await dockyard.local(first.image.digest) == first
        with pytest.raises(NotFoundError):
            await dockyard.local(second.image.digest)
        assert await dockyard.collect(set()) == [first.image.digest]
        assert layer_folders(store) == []
        assert list((store / "blobs/sha256").iterdir()) == []


@pytest.mark.root
@needs_root
async def test_collection_spares_what_was_asked_about_lately(
    open_dockyard, new_image, new_tar, layout, store, mock_clock
):
    mock_clock.autojump_threshold = math.inf
    base, a, b = (bytes(new_tar().file(name)) for name in (b"base", b"a", b"b"))
    new_image.of(base, a).write_layout(layout, "a")
    new_image.of(base, b).write_layout(layout, "b")
    async with open_dockyard() as dockyard:
        first = await dockyard.ensure(await dockyard.resolve(reference(layout, "a")))
        second = await dockyard.ensure(await dockyard.resolve(reference(layout, "b")))
        mock_clock.jump(100)
        assert await dockyard.collect(set(), idle_seconds=101) == []
        await dockyard.local(first.image.digest)
        assert await dockyard.collect(set(), idle_seconds=100) == [second.image.digest]
        assert layer_folders(store) == sorted(diff_id(x).removeprefix("sha256:") for x in (base, a))
        mock_clock.jump(100)
        resolved = await dockyard.resolve(reference(layout, "a"))
        assert await dockyard.collect(set(), idle_seconds=50) == []
        assert await dockyard.local(resolved.digest) == first
        assert await dockyard.collect(set()) == [resolved.digest]


@pytest.mark.root
@needs_root
async def test_what_is_looked_up_during_a_collection_is_whole_or_not_here(
    open_dockyard, new_image, new_tar, layout, monkeypatch, two_layers
):
    """Whoever asks while layers go must not be given folders that are gone a moment later."""
    new_image.of(*two_layers).write_layout(layout)
    entered, go_on = threading.Event(), threading.Event()

    def slow(*arguments):
        entered.set()
        go_on.wait(30)
        return collect(*arguments)

    monkeypatch.setattr("nanocloud_dockyard.provider.collect", slow)
    async with open_dockyard() as dockyard:
        unpacked = await dockyard.ensure(await dockyard.resolve(reference(layout)))
        answers = []

        async def look_up():
            try:
                found = await dockyard.local(unpacked.image.digest)
                answers.append(all(path.exists() for path in found.layers))
            except NotFoundError:
                answers.append(None)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(dockyard.collect, set())
            await trio.to_thread.run_sync(entered.wait, 30)
            nursery.start_soon(look_up)
            await trio.testing.wait_all_tasks_blocked()
            assert answers == []
            go_on.set()
        assert answers == [None]
        again = await dockyard.ensure(await dockyard.resolve(reference(layout)))
        assert again == unpacked


async def test_collection_keeps_what_was_built_here(open_dockyard, new_image, new_tar, store):
    built = new_image.of(bytes(new_tar().file(b"f")))
    built.write_layout(store / "layout", "mariadb")
    (store / "layout/blobs/sha256" / ("a" * 64)).write_text("of an older build")
    async with open_dockyard() as dockyard:
        await dockyard.resolve("mariadb")
        await dockyard.collect(set())
        assert (await dockyard.resolve("mariadb")).digest
    kept = {f"sha256:{path.name}" for path in (store / "layout/blobs/sha256").iterdir()}
    assert kept == set(built.blobs)


@pytest.mark.root
@needs_root
async def test_an_image_that_was_whole_is_not_any_more_once_a_layer_is_gone(
    open_dockyard, new_image, new_tar, layout, store, tmp_path
):
    new_image.of(bytes(new_tar().file(b"a"))).write_layout(layout, "a")
    (aside := tmp_path / "aside").mkdir()
    async with open_dockyard() as dockyard:
        unpacked = await dockyard.ensure(await dockyard.resolve(reference(layout, "a")))
        assert await dockyard.local(unpacked.image.digest) == unpacked
        assert await dockyard.local(unpacked.image.digest) == unpacked
        for folder in (store / "layers").iterdir():  # behind our back
            folder.rename(aside / folder.name)  # in one step: the dockyard may still be syncing it
        with pytest.raises(NotFoundError):
            await dockyard.local(unpacked.image.digest)
