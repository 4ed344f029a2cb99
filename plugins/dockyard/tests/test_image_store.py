"""Images from layout folders, unpacked for real: whole or not at all, once, and as overlayfs shows them."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from nanocloud.concurrency import gather
from nanocloud.errors import ImageError, NotFoundError
from nanocloud.providers.image import Digest
from nanocloud_dockyard.layout import LayoutSource
from nanocloud_dockyard.settings import LimitSettings
from nanocloud_dockyard.unpacker import unpack

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="layers keep owners and devices: needs root")


def reference(layout, tag="latest"):
    return f"oci:{layout}:{tag}"


def layer_folders(store):
    return sorted(path.name for path in (store / "layers").iterdir())


def diff_id(archive):
    return Digest("sha256:" + hashlib.sha256(bytes(archive)).hexdigest())


# Resolving: no root, no layer


async def test_resolving_reads_the_configuration_and_no_layer(open_dockyard, new_image, new_tar, layout, two_layers):
    image = new_image.of(*two_layers, Env=["A=b"], Cmd=["run"], Labels={"io.nanocloud.options": "{}"})
    image.write_layout(layout)
    for layer in image.manifest["layers"]:
        (layout / "blobs/sha256" / layer["digest"].removeprefix("sha256:")).unlink()
    async with open_dockyard() as dockyard:
        found = await dockyard.resolve(reference(layout))
    assert found.config.environment == {"A": "b"}
    assert found.config.labels == {"io.nanocloud.options": "{}"}
    assert found.size_bytes == sum(layer["size"] for layer in image.manifest["layers"])


async def test_the_only_image_of_a_layout_needs_no_tag(open_dockyard, new_image, new_tar, layout):
    new_image.of(bytes(new_tar())).write_layout(layout, tag="v1")
    async with open_dockyard() as dockyard:
        assert (await dockyard.resolve(f"oci:{layout}")).reference == f"oci:{layout}"
        with pytest.raises(NotFoundError, match="has no image 'v2'; it has v1"):
            await dockyard.resolve(f"oci:{layout}:v2")


async def test_a_pinned_image_is_found_whatever_its_tag_says_now(open_dockyard, new_image, new_tar, layout):
    new_image.of(bytes(new_tar().file(b"old"))).write_layout(layout)
    async with open_dockyard() as dockyard:
        old = await dockyard.resolve(reference(layout))
        new_image.of(bytes(new_tar().file(b"new"))).write_layout(layout)
        assert (await dockyard.resolve(reference(layout))).digest != old.digest
        assert (await dockyard.resolve(f"{reference(layout)}@{old.digest}")).digest == old.digest


async def test_an_index_of_platforms_gives_ours(open_dockyard, new_image, new_tar, layout):
    ours, other = new_image.of(bytes(new_tar().file(b"a"))), new_image.of(bytes(new_tar().file(b"b")))
    other.configuration["architecture"] = "sparc"
    entries = []
    for image, architecture in ((other, "sparc"), (ours, "amd64")):
        entries.append(image.finish() | {"platform": {"os": "linux", "architecture": architecture}})
        image.write_layout(layout, tag=None)
    index = new_image(manifest={"schemaVersion": 2, "manifests": entries})
    data = json.dumps(index.manifest).encode()
    descriptor = index.blob(data, "application/vnd.oci.image.index.v1+json")
    (layout / "blobs/sha256" / descriptor["digest"].removeprefix("sha256:")).write_bytes(data)
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [descriptor]}))
    async with open_dockyard() as dockyard:
        found = await dockyard.resolve(f"oci:{layout}")
        assert found.digest == entries[1]["digest"]
        assert (await dockyard.resolve(f"oci:{layout}@{descriptor['digest']}")).digest == found.digest


BROKEN = {
    "another machine": (lambda i: i.configuration.update(architecture="sparc"), "an image for linux/sparc; this node"),
    "a layer too many": (lambda i: i.configuration["rootfs"]["diff_ids"].append("sha256:" + "0" * 64), "2 diff_ids"),
    "no configuration": (lambda i: i.configuration.clear(), "rootfs must be an object"),
    "too large": (lambda i: i.manifest["layers"][0].update(size=1 << 40), "the limit is 34359738368 .max_image_bytes"),
    "a signature": (lambda i: i.manifest["layers"][0].update(mediaType="application/pgp"), "is no layer"),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_broken_image_is_refused(open_dockyard, new_image, new_tar, layout, case):
    bend, says = BROKEN[case]
    image = new_image.of(bytes(new_tar()))
    bend(image)
    image.write_layout(layout)
    async with open_dockyard() as dockyard:
        with pytest.raises(ImageError, match=says):
            await dockyard.resolve(reference(layout))


@pytest.mark.parametrize("part", ["manifest", "configuration"])
async def test_a_document_of_another_digest_is_refused(open_dockyard, new_image, new_tar, layout, part):
    image = new_image.of(bytes(new_tar()))
    image.write_layout(layout)
    digest = image.manifest["config"]["digest"] if part == "configuration" else image.finish()["digest"]
    blob = layout / "blobs/sha256" / digest.removeprefix("sha256:")
    blob.write_bytes(blob.read_bytes().replace(b"linux", b"Linux").replace(b"schema", b"Schema"))
    async with open_dockyard() as dockyard:
        with pytest.raises(ImageError, match="has digest"):
            await dockyard.resolve(reference(layout))


@pytest.mark.parametrize("kind", ["fifo", "folder", "missing"])
async def test_an_index_that_is_no_file_holds_nobody_up(open_dockyard, new_image, new_tar, layout, kind):
    new_image.of(bytes(new_tar())).write_layout(layout)
    (layout / "index.json").unlink()
    if kind != "missing":
        os.mkfifo(layout / "index.json") if kind == "fifo" else (layout / "index.json").mkdir()
    async with open_dockyard() as dockyard:
        with trio.fail_after(5), pytest.raises((ImageError, NotFoundError)):
            await dockyard.resolve(reference(layout))


# Services


async def test_a_built_service_is_found_by_its_name(open_dockyard, new_image, new_tar, store):
    new_image.of(bytes(new_tar())).write_layout(store / "layout", tag="mariadb")
    async with open_dockyard() as dockyard:
        assert (await dockyard.resolve("mariadb")).reference == "mariadb"
        entries = {entry.service: entry for entry in await dockyard.catalog()}
    assert entries["mariadb"].built
    assert entries["mariadb"].description
    assert not entries["nginx"].built


async def test_a_service_that_is_not_built_says_how(open_dockyard):
    async with open_dockyard() as dockyard:
        with pytest.raises(NotFoundError, match="has no image on this node") as caught:
            await dockyard.resolve("mariadb")
    assert caught.value.hint == "build it: nanocloud dockyard build mariadb"


async def test_an_unknown_service_lists_near_ones(open_dockyard):
    async with open_dockyard() as dockyard:
        with pytest.raises(NotFoundError, match=r"no service 'mariad'; did you mean mariadb\?"):
            await dockyard.resolve("mariad")


# Unpacking


@pytest.mark.root
@needs_root
async def test_an_image_is_unpacked_and_found_again_without_its_source(
    open_dockyard, new_image, new_tar, layout, two_layers
):
    new_image.of(*two_layers).write_layout(layout)
    seen = []
    async with open_dockyard() as dockyard:
        image = await dockyard.resolve(reference(layout))
        unpacked = await dockyard.ensure(image, progress=lambda **said: seen.append(said))
    shutil.rmtree(layout)
    assert (unpacked.layers[0] / "etc/old").read_text() == "1"
    assert (unpacked.layers[0] / "etc").stat().st_mode & 0o777 == 0o755
    assert len({said["layer"] for said in seen if said["done_bytes"] == said["total_bytes"]}) == 2
    async with open_dockyard() as dockyard:  # the node came back
        assert await dockyard.local(image.digest) == unpacked
        assert await dockyard.ensure(image) == unpacked
        assert (await dockyard.resolve(f"{reference(layout)}@{image.digest}")).digest == image.digest


COMPRESSIONS = {
    "gzip": ("+gzip", gzip.compress),
    "plain": ("", bytes),
    "plain, called gzip": ("+gzip", bytes),
}


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("format", [*COMPRESSIONS, "zstd"])
async def test_layers_of_every_compression(open_dockyard, new_image, new_tar, layout, format):
    from backports import zstd

    suffix, compress = {**COMPRESSIONS, "zstd": ("+zstd", zstd.compress)}[format]
    new_image.of(bytes(new_tar().file(b"f", b"x" * 100_000)), compress=compress, suffix=suffix).write_layout(layout)
    async with open_dockyard() as dockyard:
        unpacked = await dockyard.ensure(await dockyard.resolve(reference(layout)))
    assert (unpacked.layers[0] / "f").stat().st_size == 100_000


@pytest.mark.root
@needs_root
async def test_a_wrong_diff_id_is_refused_and_leaves_nothing(open_dockyard, new_image, new_tar, layout, store):
    image = new_image.of(bytes(new_tar().file(b"f")))
    image.configuration["rootfs"]["diff_ids"] = ["sha256:" + "1" * 64]
    image.write_layout(layout)
    async with open_dockyard() as dockyard:
        found = await dockyard.resolve(reference(layout))
        with pytest.raises(ImageError, match=r"layer sha256:.* has diff_id [0-9a-f]*, not 1111"):
            await dockyard.ensure(found)
        assert layer_folders(store) == []
        with pytest.raises(NotFoundError):
            await dockyard.local(found.digest)


@pytest.mark.root
@needs_root
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "gzip|has sha256"),
        (lambda data: data[:-1], "bytes, not"),
        (lambda data: data + b"x", "bytes, not"),
        (lambda data: gzip.compress(b"x" * 600)[: len(data)].ljust(len(data), b"\0"), "checksum|gzip"),
    ],
)
async def test_a_changed_layer_is_refused(open_dockyard, new_image, new_tar, layout, store, change, says):
    image = new_image.of(bytes(new_tar().file(b"f", os.urandom(600))))
    image.write_layout(layout)
    blob = layout / "blobs/sha256" / image.manifest["layers"][0]["digest"].removeprefix("sha256:")
    blob.write_bytes(change(blob.read_bytes()))
    async with open_dockyard() as dockyard:
        with pytest.raises(ImageError, match=says):
            await dockyard.ensure(await dockyard.resolve(reference(layout)))
        assert layer_folders(store) == []


@pytest.mark.root
@needs_root
async def test_a_hostile_layer_is_refused_by_name(open_dockyard, new_image, new_tar, layout, store):
    good = bytes(new_tar().file(b"good"))
    new_image.of(good, bytes(new_tar().file(b"../../x"))).write_layout(layout)
    async with open_dockyard() as dockyard:
        with pytest.raises(ImageError, match=r"layer sha256:[0-9a-f]{64}: \.\./\.\./x: a path with \.\."):
            await dockyard.ensure(await dockyard.resolve(reference(layout)))
    assert set(layer_folders(store)) <= {diff_id(good).removeprefix("sha256:")}


@pytest.mark.root
@needs_root
async def test_a_bomb_stops_at_the_limit(open_dockyard, new_image, new_tar, layout, store):
    new_image.of(bytes(new_tar().file(b"zeros", bytes(8 << 20)))).write_layout(layout)
    async with open_dockyard(limits=LimitSettings(max_layer_bytes=1 << 20)) as dockyard:
        with pytest.raises(ImageError, match=r"over 1048576 bytes uncompressed \(max_layer_bytes\)"):
            await dockyard.ensure(await dockyard.resolve(reference(layout)))
    assert layer_folders(store) == []


@pytest.mark.root
@needs_root
async def test_concurrent_calls_share_the_work(open_dockyard, new_image, new_tar, layout, store, monkeypatch):
    new_image.of(bytes(new_tar().file(b"f", os.urandom(1 << 20)))).write_layout(layout)
    started = []
    open_process = trio.lowlevel.open_process

    async def counted(*args, **kwargs):
        started.append(args)
        return await open_process(*args, **kwargs)

    monkeypatch.setattr(trio.lowlevel, "open_process", counted)
    async with open_dockyard() as dockyard:
        image = await dockyard.resolve(reference(layout))
        results = await gather(*[partial(dockyard.ensure, image)] * 5)
    assert len(started) == 1
    assert all(result == results[0] for result in results)


@pytest.mark.root
@needs_root
async def test_as_many_layers_as_configured_are_unpacked_side_by_side(
    open_dockyard, new_image, new_tar, layout, monkeypatch
):
    image = new_image.of(*(bytes(new_tar().file(b"%d" % number)) for number in range(6)))
    image.write_layout(layout)
    running, most = set(), []
    both = trio.Event()

    async def counted(job, content, progress):
        running.add(job)
        most.append(len(running))
        if len(running) == 2:
            both.set()
        with trio.fail_after(30):
            await both.wait()
        try:
            return await unpack(job, content, progress)
        finally:
            running.discard(job)

    monkeypatch.setattr("nanocloud_dockyard.provider.unpack", counted)
    async with open_dockyard(parallel_layers=2) as dockyard:
        unpacked = await dockyard.ensure(await dockyard.resolve(reference(layout)))
    assert (max(most), len(most), len(unpacked.layers)) == (2, 6, 6)


@pytest.mark.root
@needs_root
async def test_layers_are_shared_between_images(open_dockyard, new_image, new_tar, layout):
    base = bytes(new_tar().file(b"base"))
    new_image.of(base, bytes(new_tar().file(b"a"))).write_layout(layout, "a")
    new_image.of(base, bytes(new_tar().file(b"b"))).write_layout(layout, "b")
    async with open_dockyard() as dockyard:
        a = await dockyard.ensure(await dockyard.resolve(reference(layout, "a")))
        inode = a.layers[0].stat().st_ino
        b = await dockyard.ensure(await dockyard.resolve(reference(layout, "b")))
    assert a.layers[0] == b.layers[0]
    assert b.layers[0].stat().st_ino == inode


STALLING = """
import os, trio
from contextlib import asynccontextmanager
from nanocloud_dockyard import provider, sources
from nanocloud_dockyard.layout import LayoutSource

class Stalling(LayoutSource):
    # Sends half of each layer, says so, and never goes on.
    @asynccontextmanager
    async def layer(self, descriptor):
        async def half():
            yield os.read(fd, descriptor.size_bytes // 2)
            self.halfway()
            await trio.sleep_forever()
        async with super().layer(descriptor) as fd:
            yield half()
    def halfway(self):
        print("halfway", flush=True)

sources.LayoutSource = Stalling
"""


def many_files(new_tar):
    tar = new_tar()
    for number in range(3000):
        tar.file(b"f%d" % number, os.urandom(700))
    return bytes(tar)


@pytest.mark.root
@needs_root
async def test_a_cancelled_call_leaves_nothing_and_can_be_repeated(
    open_dockyard, new_image, new_tar, layout, store, monkeypatch
):
    new_image.of(many_files(new_tar)).write_layout(layout)
    monkeypatch.setattr("nanocloud_dockyard.sources.LayoutSource", LayoutSource)  # put back afterwards
    names: dict[str, Any] = {}
    exec(STALLING, names)
    halfway = trio.Event()
    names["Stalling"].halfway = lambda _: halfway.set()
    async with open_dockyard() as dockyard:
        image = await dockyard.resolve(reference(layout))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dockyard.ensure, image)
            with trio.fail_after(30):
                await halfway.wait()
            assert layer_folders(store)[0].startswith(".new-")
            nursery.cancel_scope.cancel()
        monkeypatch.undo()
        unpacked = await dockyard.ensure(image)
    assert len(list(unpacked.layers[0].iterdir())) == 3000
    assert len(layer_folders(store)) == 1


@pytest.mark.root
@needs_root
async def test_one_who_gives_up_does_not_stop_the_others(open_dockyard, new_image, new_tar, layout, store, monkeypatch):
    new_image.of(many_files(new_tar)).write_layout(layout)
    async with open_dockyard() as dockyard:
        image = await dockyard.resolve(reference(layout))
        async with trio.open_nursery() as patient:
            patient.start_soon(dockyard.ensure, image)
            async with trio.open_nursery() as impatient:
                impatient.start_soon(dockyard.ensure, image)
                await trio.testing.wait_all_tasks_blocked()
                impatient.cancel_scope.cancel()
        assert await dockyard.local(image.digest)


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("victim", ["node", "child"])
async def test_a_kill_in_the_middle_heals(open_dockyard, new_image, new_tar, layout, store, victim):
    """The node, or only its unpacking child, dies by SIGKILL while files are being made."""
    new_image.of(many_files(new_tar)).write_layout(layout)
    program = f"""{STALLING}
from pathlib import Path
from nanocloud_dockyard.settings import DockyardConfig
async def main():
    async with provider.Dockyard(DockyardConfig(), Path({str(store)!r})) as dockyard:
        await dockyard.ensure(await dockyard.resolve({reference(layout)!r}))
trio.run(main)
"""
    node = await trio.lowlevel.open_process(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        with trio.fail_after(30):
            assert (await node.stdout.receive_some()).startswith(b"halfway")
            child = child_of(node.pid)
            ended = os.pidfd_open(child)
            os.kill(node.pid if victim == "node" else child, signal.SIGKILL)
            stderr = b"".join([chunk async for chunk in node.stderr])
            assert await node.wait() != 0
            await trio.lowlevel.wait_readable(ended)  # an orphan ends by itself: its input is cut
    finally:
        node.kill()
        with trio.CancelScope(shield=True):
            await node.wait()
            await node.stdout.aclose()
    os.close(ended)
    if victim == "child":
        assert b"the unpacking child ended with status -9" in stderr
        assert layer_folders(store) == []
    async with open_dockyard() as dockyard:
        assert layer_folders(store) == []
        unpacked = await dockyard.ensure(await dockyard.resolve(reference(layout)))
    assert len(list(unpacked.layers[0].iterdir())) == 3000


def child_of(pid):
    (child,) = (
        int(found) for file in Path(f"/proc/{pid}/task").glob("*/children") for found in file.read_text().split()
    )
    return child


async def test_leftovers_are_removed_but_not_those_of_the_living(open_dockyard, store):
    import fcntl

    async with open_dockyard():
        pass
    for name in (".new-dead/diff/f", ".new-early", ".gone-x/diff/d", ".new-live/diff"):
        (store / "layers" / name).mkdir(parents=True)
    (store / "blobs/sha256/.x.tmp").write_text("half")
    fd = os.open(store / "layers/.new-live/diff", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    async with open_dockyard():
        assert layer_folders(store) == [".new-live"]
        assert not (store / "blobs/sha256/.x.tmp").exists()
    os.close(fd)
    async with open_dockyard():
        assert layer_folders(store) == []


@pytest.mark.root
@needs_root
async def test_a_layer_that_the_disk_may_not_have_is_fetched_again_after_a_power_cut(
    open_dockyard, new_image, new_tar, layout, store, monkeypatch, two_layers
):
    """The mark of an unsynced layer counts after a reboot only; a server that is killed finds all layers there."""
    lower, upper = two_layers
    new_image.of(lower, upper).write_layout(layout)
    monkeypatch.setattr("nanocloud_dockyard.provider.Store.settle", lambda self: None)  # the disk is slow
    async with open_dockyard() as dockyard:
        unpacked = await dockyard.ensure(await dockyard.resolve(reference(layout)))
    async with open_dockyard() as dockyard:
        assert await dockyard.local(unpacked.image.digest) == unpacked
    mark = store / "layers" / diff_id(lower).removeprefix("sha256:") / ".unsynced"
    mark.unlink()
    mark.symlink_to("another boot")
    async with open_dockyard() as dockyard:
        assert layer_folders(store) == [diff_id(upper).removeprefix("sha256:")]
        with pytest.raises(NotFoundError):
            await dockyard.local(unpacked.image.digest)
        assert await dockyard.ensure(await dockyard.resolve(reference(layout))) == unpacked


@pytest.mark.root
@needs_root
async def test_layers_reach_the_disk_by_themselves(open_dockyard, new_image, new_tar, layout, store, two_layers):
    new_image.of(*two_layers).write_layout(layout)
    async with open_dockyard() as dockyard:
        await dockyard.ensure(await dockyard.resolve(reference(layout)))
        with trio.fail_after(60):
            while list(store.glob("layers/*/.unsynced")):  # noqa: ASYNC110
                await trio.sleep(0.01)
    assert len(layer_folders(store)) == 2


async def test_a_broken_document_in_the_store_is_read_again(open_dockyard, new_image, new_tar, layout, store):
    new_image.of(bytes(new_tar())).write_layout(layout)
    async with open_dockyard() as dockyard:
        image = await dockyard.resolve(reference(layout))
        for path in (store / "blobs/sha256").iterdir():
            path.write_bytes(b"")  # what a power loss can leave
        assert await dockyard.resolve(f"{reference(layout)}@{image.digest}") is not None
        assert all(path.stat().st_size for path in (store / "blobs/sha256").iterdir())
