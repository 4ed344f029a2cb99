"""OCI archives: what other tools write is read in place; what is hostile is one error and leaves nothing."""

from __future__ import annotations

import os
import shutil

import pytest
import trio

from nanocloud.errors import ImageError, NotFoundError
from nanocloud_dockyard.archive import ArchiveFiles
from nanocloud_dockyard.layout import LayoutSource
from nanocloud_dockyard.provider import Dockyard
from nanocloud_dockyard.settings import DockyardConfig

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="layers keep owners and devices: needs root")
needs_skopeo = pytest.mark.skipif(not shutil.which("skopeo"), reason="needs skopeo")


@pytest.fixture
def image(new_image, new_tar):
    lower = bytes(new_tar().folder(b"etc").file(b"etc/conf", os.urandom(2 << 20), mode=0o600, uid=33))
    upper = bytes(new_tar().folder(b"etc").file(b"etc/new", b"1"))
    return new_image.of(lower, upper, Env=["A=b"])


@pytest.fixture
def packed(tmp_path, new_tar):
    """Packs a layout folder, with whatever ``change`` adds before or after it."""

    def pack(layout, *, prefix=b"", before=None, after=None):
        tar = new_tar()
        if before:
            before(tar)
        for path in sorted(layout.rglob("*")):
            name = prefix + str(path.relative_to(layout)).encode()
            if path.is_dir():
                tar.folder(name + b"/")
            else:
                tar.pax({b"path": name}).file(b"long", path.read_bytes())
        if after:
            after(tar)
        (tmp_path / "image.tar").write_bytes(bytes(tar))
        return tmp_path / "image.tar"

    return pack


def dockyard(tmp_path):
    return Dockyard(DockyardConfig(), tmp_path / "images")


@pytest.mark.root
@needs_root
@needs_skopeo
@pytest.mark.parametrize("tag", ["v1", None])
async def test_what_skopeo_wrote_is_installed_like_the_folder(tmp_path, image, tag):
    image.write_layout(tmp_path / "layout")
    archive = tmp_path / "image.tar"
    words = ["skopeo", "copy", "--quiet", f"oci:{tmp_path}/layout:latest", f"oci-archive:{archive}:{tag or 'v1'}"]
    await trio.run_process(words)
    async with dockyard(tmp_path) as provider:
        folder = await provider.resolve(f"oci:{tmp_path}/layout:latest")
        found = await provider.resolve(f"oci-archive:{archive}" + (f":{tag}" if tag else ""))
        assert (found.digest, found.config) == (folder.digest, folder.config)
        unpacked = await provider.ensure(found)
        conf = (unpacked.layers[0] / "etc/conf").stat()
        assert (conf.st_size, conf.st_uid, conf.st_mode & 0o777) == (2 << 20, 33, 0o600)
        with pytest.raises(NotFoundError, match="has no image 'v2'; it has v1"):
            await provider.resolve(f"oci-archive:{archive}:v2")


@pytest.mark.parametrize("prefix", [b"", b"./"])
async def test_names_may_begin_with_a_dot(tmp_path, image, packed, prefix):
    descriptor = image.finish()
    archive = packed(image.write_layout(tmp_path / "layout"), prefix=prefix)
    async with dockyard(tmp_path) as provider:
        assert (await provider.resolve(f"oci-archive:{archive}")).digest == descriptor["digest"]
        pinned = await provider.resolve(f"oci-archive:{archive}@{descriptor['digest']}")
        assert pinned.digest == descriptor["digest"]


async def test_an_archive_that_is_replaced_is_read_anew(tmp_path, image, packed, new_image, new_tar):
    packed(image.write_layout(tmp_path / "layout"))
    source = LayoutSource(ArchiveFiles(tmp_path / "image.tar"), None)
    first = await source.document(None)
    packed(new_image.of(bytes(new_tar().file(b"other"))).write_layout(tmp_path / "second"))
    assert (await source.document(None)).digest != first.digest


async def test_bytes_that_are_not_as_named_are_refused(tmp_path, image, packed):
    layout = image.write_layout(tmp_path / "layout")
    manifest = layout / "blobs/sha256" / image.finish()["digest"].removeprefix("sha256:")
    manifest.write_bytes(manifest.read_bytes()[:-1] + b" ")
    async with dockyard(tmp_path) as provider:
        with pytest.raises(ImageError, match="has digest"):
            await provider.resolve(f"oci-archive:{packed(layout)}")


EVIL = b'{"imageLayoutVersion": "9"}'
HOSTILE = {
    "not a tar": (lambda path: path.write_bytes(b"\x1f\x8b" + os.urandom(5000)), "is no OCI archive"),
    "empty": (lambda path: path.write_bytes(b""), "has no oci-layout"),
    "a folder": (lambda path: path.mkdir(), "is no regular file"),
    "a pipe": (lambda path: os.mkfifo(path), "is no regular file"),
    "absent": (lambda path: None, "does not exist"),
}


@pytest.mark.parametrize("case", HOSTILE)
async def test_what_is_no_archive_is_refused(tmp_path, case):
    make, says = HOSTILE[case]
    make(tmp_path / "image.tar")
    async with dockyard(tmp_path) as provider:
        with pytest.raises((ImageError, NotFoundError), match=says) as caught:
            await provider.resolve(f"oci-archive:{tmp_path}/image.tar")
    assert len(str(caught.value).splitlines()) == 1


ENTRIES = {
    "a name twice": (lambda t: t.file(b"oci-layout", EVIL), "names 'oci-layout' twice"),
    "a name twice, by another spelling": (lambda t: t.file(b"./oci-layout", EVIL), "names 'oci-layout' twice"),
    "more than there is": (lambda t: t.file(b"x", size=b"77777777777\0"), "in the middle of an entry"),
    "a sparse file": (lambda t: t.file(b"x", kind=b"S"), "sparse files"),
    "a header without end": (lambda t: t.pax({b"comment": b"x" * (1 << 20)}).file(b"x"), "max_header_bytes"),
    "entries without end": (lambda t: [t.folder(b"d") for _ in range(20_001)], "max_entries"),
}


@pytest.mark.parametrize("case", ENTRIES)
async def test_a_hostile_archive_is_refused(tmp_path, image, packed, case):
    change, says = ENTRIES[case]
    archive = packed(image.write_layout(tmp_path / "layout"), after=change)
    async with dockyard(tmp_path) as provider:
        with pytest.raises(ImageError, match=says):
            await provider.resolve(f"oci-archive:{archive}")


LINKS = {
    "a link": lambda t, name: t.symlink(name, b"/etc/passwd"),
    "a hard link": lambda t, name: t.hard_link(name, b"/etc/passwd"),
    "a device": lambda t, name: t.device(name, (1, 5)),
    "a pipe": lambda t, name: t.fifo(name),
}


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("name", ["index.json", "oci-layout"])
async def test_what_is_no_file_is_as_good_as_absent(tmp_path, image, packed, kind, name):
    layout = image.write_layout(tmp_path / "layout")
    (layout / name).unlink()
    archive = packed(layout, before=lambda tar: LINKS[kind](tar, name.encode()))
    async with dockyard(tmp_path) as provider:
        with pytest.raises(NotFoundError, match=f"has no {name}"):
            await provider.resolve(f"oci-archive:{archive}")


async def test_large_blobs_are_stepped_over_and_not_read(tmp_path, image, packed):
    """Eight gigabytes of holes before the index: looking through takes no longer than without."""
    layout = image.write_layout(tmp_path / "layout")
    archive = packed(layout)
    small = archive.read_bytes()
    with archive.open("wb") as file:
        blob = b"blobs/sha256/huge"
        file.write(_header(blob, 1 << 33))
        file.seek(1 << 33, os.SEEK_CUR)
        file.write(small)
    async with dockyard(tmp_path) as provider:
        assert (await provider.resolve(f"oci-archive:{archive}")).config.environment == {"A": "b"}


def _header(name, size):
    from tarfile import TarInfo

    info = TarInfo(name.decode())
    info.size = size
    return info.tobuf()
