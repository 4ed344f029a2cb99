"""Layers on top of each other, as overlayfs shows them."""

from __future__ import annotations

import os
import subprocess

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="layers keep owners and devices: needs root")


def reference(layout, tag="latest"):
    return f"oci:{layout}:{tag}"


def stacked(layers, tmp_path, script):
    """Mount the layers in a mount namespace of our own and run a shell script in the merged folder."""
    merged = tmp_path / "merged"
    merged.mkdir(exist_ok=True)
    lower = ":".join(str(layer) for layer in reversed(layers))
    mount = f'mount -t overlay overlay -o lowerdir="{lower}:{merged}" "{merged}" && cd "{merged}" && {script}'
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", mount]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.root
@needs_root
async def test_whiteouts_hide_what_lower_layers_have(open_dockyard, new_image, new_tar, layout, tmp_path, two_layers):
    new_image.of(*two_layers).write_layout(layout)
    async with open_dockyard() as dockyard:
        unpacked = await dockyard.ensure(await dockyard.resolve(reference(layout)))
    assert stacked(unpacked.layers, tmp_path, "find . | sort").split() == [".", "./d", "./d/b", "./etc", "./stays"]


@pytest.mark.root
@needs_root
async def test_an_opaque_root_hides_everything(open_dockyard, new_image, new_tar, layout):
    lower, upper = bytes(new_tar().file(b"old")), bytes(new_tar().file(b".wh..wh..opq").file(b"new"))
    new_image.of(lower, upper).write_layout(layout)
    async with open_dockyard() as dockyard:
        (only,) = (await dockyard.ensure(await dockyard.resolve(reference(layout)))).layers
    assert [path.name for path in only.iterdir()] == ["new"]


@pytest.mark.root
@needs_root
async def test_a_layer_that_comes_twice_is_stacked_once(open_dockyard, new_image, new_tar, layout, tmp_path):
    again, removes = bytes(new_tar().file(b"f", b"1")), bytes(new_tar().file(b".wh.f").file(b"g"))
    new_image.of(again, removes, again).write_layout(layout)
    async with open_dockyard() as dockyard:
        unpacked = await dockyard.ensure(await dockyard.resolve(reference(layout)))
    assert len(unpacked.layers) == 2
    assert stacked(unpacked.layers, tmp_path, "cat f; ls").split() == ["1f", "g"]


@pytest.mark.root
@needs_root
async def test_folders_without_an_entry_keep_what_lower_layers_say(open_dockyard, new_image, new_tar, layout, tmp_path):
    lower = new_tar().folder(b"tmp", mode=0o1777).folder(b"srv", mode=0o700, uid=5, mtime=9).folder(b"srv/a", uid=6)
    lower.folder(b"gone", mode=0o700).folder(b"own", mode=0o700)
    upper = new_tar().file(b"tmp/f").file(b"srv/a/b/f").file(b".wh.gone").file(b"gone/f").folder(b"own").file(b"own/f")
    new_image.of(bytes(lower), bytes(upper)).write_layout(layout)
    async with open_dockyard() as dockyard:
        unpacked = await dockyard.ensure(await dockyard.resolve(reference(layout)))
        assert await dockyard.local(unpacked.image.digest) == unpacked
        await dockyard.collect({unpacked.image.digest})
        assert await dockyard.local(unpacked.image.digest) == unpacked
    said = stacked(
        unpacked.layers, tmp_path, "stat -c '%n %a %u %Y' tmp srv srv/a srv/a/b gone own; find . -type f|sort"
    )
    assert said.split("\n") == [
        "tmp 1777 0 1600000000",
        "srv 700 5 9",
        "srv/a 755 6 1600000000",
        "srv/a/b 755 0 0",
        "gone 755 0 0",
        "own 755 0 1600000000",
        "./gone/f",
        "./own/f",
        "./srv/a/b/f",
        "./tmp/f",
        "",
    ]


@pytest.mark.root
@needs_root
async def test_the_largest_zstd_window_fits_the_childs_memory(open_dockyard, new_image, new_tar, layout):
    from backports import zstd

    def compress(data):
        return zstd.compress(data, options={zstd.CompressionParameter.window_log: 27})

    tar = bytes(new_tar().file(b"f", os.urandom(1 << 20) * 140))
    new_image.of(tar, compress=compress, suffix="+zstd").write_layout(layout)
    async with open_dockyard() as dockyard:
        assert await dockyard.ensure(await dockyard.resolve(reference(layout)))
