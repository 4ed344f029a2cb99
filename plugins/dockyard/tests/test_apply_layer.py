"""One layer's tar becomes a folder, exactly; a hostile one never leaves it."""

import os
import random
import stat
import struct
import tarfile
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pytest

from nanocloud_dockyard.limits import UnpackLimits
from nanocloud_dockyard.tarstream import LayerEntryError, LayerLimitError
from nanocloud_dockyard.unpack import apply_layer

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="layers keep owners and devices: needs root")

OPAQUE = "trusted.overlay.opaque"


@pytest.fixture
def root(tmp_path):
    """The folder to unpack into, beside a folder that must stay as it is."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("untouched")
    (tmp_path / "root").mkdir()
    yield tmp_path / "root"
    assert sorted(os.listdir(tmp_path)) == ["outside", "root"]
    assert os.listdir(tmp_path / "outside") == ["precious"]
    assert (tmp_path / "outside" / "precious").read_text() == "untouched"


def apply(archive, root, **limits):
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    before = len(os.listdir("/proc/self/fd"))
    try:
        return apply_layer(BytesIO(bytes(archive)), fd, UnpackLimits(**limits))
    finally:
        assert len(os.listdir("/proc/self/fd")) == before  # no descriptor is left open, also on failure
        os.close(fd)


# What layers hold


def test_files_folders_and_links_arrive_with_their_metadata(root, tar):
    tar.folder(b"etc/", mode=0o751, uid=3, gid=4, mtime=111)
    tar.file(b"etc/motd", b"hello\n", mode=0o640, uid=5, gid=6, mtime=222)
    tar.symlink(b"etc/link", b"/absolute/../anything", uid=7, gid=8, mtime=333)
    tar.hard_link(b"etc/again", b"etc/motd")
    stats = apply(tar, root)
    assert (stats.entries, stats.whiteouts, stats.size_bytes, stats.implied) == (4, 0, 6, ())
    motd, folder, link = (root / name for name in ("etc/motd", "etc", "etc/link"))
    assert motd.read_text() == "hello\n"
    found = motd.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_mtime) == (0o640, 5, 6, 222)
    assert found.st_nlink == 2
    assert (root / "etc/again").samefile(motd)
    found = folder.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_mtime) == (0o751, 3, 4, 111)
    found = link.lstat()
    assert (link.readlink(), found.st_uid, found.st_gid, found.st_mtime) == (Path("/absolute/../anything"), 7, 8, 333)


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_what_other_writers_write_is_read(root, format):
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as writer:
        for number, name in enumerate(["d/" + "n" * 90 + "/" + "f" * 60, "short", "ü" * 30]):
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = number * 700, 1000 + number, 0o4755
            writer.addfile(info, BytesIO(b"x" * info.size))
    apply(buffer.getvalue(), root)
    assert (root / ("d/" + "n" * 90) / ("f" * 60)).stat().st_mtime == 1000
    assert (root / "short").stat().st_size == 700
    found = (root / ("ü" * 30)).stat()
    assert (found.st_size, stat.S_IMODE(found.st_mode)) == (1400, 0o4755)


def test_long_names_owners_and_times_of_pax(root, tar):
    name = b"/".join([b"d" * 200] * 5) + b"/" + b"f" * 250
    tar.pax({b"path": name, b"mtime": b"1234567890.123456789", b"uid": b"4000000", b"gid": b"5000000"})
    tar.file(b"ignored", b"data")
    tar.pax({b"linkpath": b"t" * 3000}).symlink(b"link", b"ignored")
    tar.pax({b"mtime": b"-5.5"}).file(b"old")
    apply(tar, root)
    found = (root / os.fsdecode(name)).stat()
    assert (found.st_uid, found.st_gid, found.st_mtime_ns) == (4000000, 5000000, 1234567890123456789)
    assert (root / "link").readlink() == Path("t" * 3000)
    assert (root / "old").stat().st_mtime_ns == -5_500_000_000


def test_long_names_of_gnu(root, tar):
    name = b"d" * 150 + b"/" + b"f" * 150
    from_header = tar.file(b"././@LongLink", name + b"\0", kind=b"L").file(b"d" * 100, b"1")
    apply(from_header, root)
    assert (root / os.fsdecode(name)).read_text() == "1"


def test_base_256_numbers(root, tar):
    size = struct.pack(">B", 0x80) + (5).to_bytes(11, "big")
    apply(tar.file(b"f", b"12345", size=size), root)
    assert (root / "f").read_text() == "12345"


def test_devices_and_pipes(root, tar):
    tar.device(b"null", (1, 3), mode=0o666).device(b"disk", (8, 1), kind=b"4", mode=0o660, gid=6).fifo(b"pipe")
    apply(tar, root)
    found = (root / "null").stat()
    assert (found.st_rdev, found.st_mode) == (os.makedev(1, 3), stat.S_IFCHR | 0o666)
    found = (root / "disk").stat()
    assert (found.st_rdev, found.st_mode, found.st_gid) == (os.makedev(8, 1), stat.S_IFBLK | 0o660, 6)
    assert stat.S_ISFIFO((root / "pipe").stat().st_mode)


def test_setuid_and_capabilities_survive_the_change_of_owner(root, tar):
    capability = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service+ep
    tar.file(b"su", b"#!", mode=0o6755, uid=10, gid=20)
    tar.pax({b"SCHILY.xattr.security.capability": capability, b"SCHILY.xattr.user.note": b"\0bytes\n"})
    tar.file(b"ping", b"#!", mode=0o755, uid=10)
    apply(tar, root)
    assert stat.S_IMODE((root / "su").stat().st_mode) == 0o6755
    assert os.getxattr(root / "ping", "security.capability") == capability
    assert os.getxattr(root / "ping", "user.note") == b"\0bytes\n"


@pytest.mark.parametrize(
    "name",
    ["trusted.overlay.redirect", "trusted.overlay.opaque", "trusted.x", "user.overlay.opaque", "security.selinux"],
)
def test_attributes_of_the_host_and_of_overlayfs_are_left_out(root, tar, name):
    tar.pax({b"SCHILY.xattr." + name.encode(): b"y"}).folder(b"d").file(b"f")
    apply(tar, root)
    assert os.listxattr(root / "d") == []


def test_the_root_has_metadata_too(root, tar):
    apply(tar.folder(b"./", mode=0o711, uid=9, mtime=5), root)
    found = root.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_mtime) == (0o711, 9, 5)


def test_dots_and_leading_slashes_mean_nothing(root, tar, tree):
    tar.file(b"./a").file(b"/b").file(b"//c/./d")
    assert apply(tar, root).implied == (b"c",)
    assert tree(root) == {"a": "f", "b": "f", "c": "d", "c/d": "f"}


def test_implied_folders_are_named_and_get_fixed_metadata(root, tar):
    stats = apply(tar.file(b"x/y/z").folder(b"x"), root)
    assert stats.implied == (b"x/y",)
    found = (root / "x/y").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_mtime) == (0o755, 0, 0)


def test_a_later_entry_replaces_an_earlier_one(root, tar, tree):
    tar.file(b"a", b"old").file(b"a", b"new").symlink(b"b", b"t").file(b"b").file(b"c").folder(b"c").file(b"c/d")
    tar.symlink(b"a2", b"x").symlink(b"a2", b"y").folder(b"e", mode=0o700).folder(b"e", mode=0o755)
    apply(tar, root)
    assert (root / "a").read_text() == "new"
    assert (root / "a2").readlink() == Path("y")
    assert tree(root) == {"a": "f", "a2": "l", "b": "f", "c": "d", "c/d": "f", "e": "d"}
    assert stat.S_IMODE((root / "e").stat().st_mode) == 0o755


def test_folders_keep_their_time_although_files_come_later(root, tar):
    tar.folder(b"a", mtime=77).folder(b"a/b", mtime=88).file(b"a/b/c").file(b"a/d")
    apply(tar, root)
    assert (root / "a").stat().st_mtime == 77
    assert (root / "a/b").stat().st_mtime == 88


def test_files_in_a_folder_that_nobody_may_write_arrive(root, tar):
    apply(tar.folder(b"d", mode=0o000).file(b"d/f", b"1"), root)
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0


def test_an_empty_stream_is_an_empty_layer(root):
    assert apply(b"", root).entries == 0


def test_the_end_mark_may_be_missing_but_an_entry_must_be_whole(root, tar):
    archive = bytes(tar.file(b"f", b"x" * 600))[:-1024]
    apply(archive[: 512 + 600], root)  # without padding
    assert (root / "f").stat().st_size == 600
    with pytest.raises(LayerEntryError, match="in the middle of an entry"):
        apply(archive[: 512 + 599], root)


# Whiteouts


def test_a_whiteout_becomes_a_device(root, tar):
    stats = apply(tar.folder(b"d").file(b"d/.wh.gone"), root)
    found = (root / "d/gone").lstat()
    assert (stat.S_ISCHR(found.st_mode), found.st_rdev) == (True, 0)
    assert stats.whiteouts == 1


def test_an_opaque_folder_is_marked_and_keeps_its_own(root, tar):
    apply(tar.folder(b"d").file(b"d/new").file(b"d/.wh..wh..opq"), root)
    assert os.getxattr(root / "d", OPAQUE) == b"y"
    assert (root / "d/new").exists()


def test_an_opaque_root_is_reported(root, tar):
    assert apply(tar.file(b".wh..wh..opq"), root).opaque_root


@pytest.mark.parametrize("order", ["whiteout first", "whiteout last", "children only"])
def test_a_removed_folder_that_comes_again_is_opaque(root, tar, order):
    steps = {
        "whiteout first": lambda: tar.file(b".wh.d").folder(b"d").file(b"d/f"),
        "whiteout last": lambda: tar.folder(b"d").file(b"d/f").file(b".wh.d"),
        "children only": lambda: tar.file(b".wh.d").file(b"d/f"),
    }
    steps[order]()
    apply(tar, root)
    assert os.getxattr(root / "d", OPAQUE) == b"y"
    assert (root / "d/f").is_file()


@pytest.mark.parametrize("whiteout_first", [True, False])
def test_a_removed_file_that_comes_again_is_just_there(root, tar, whiteout_first):
    entries = [lambda: tar.file(b".wh.f"), lambda: tar.file(b"f", b"new")]
    for write in entries if whiteout_first else reversed(entries):
        write()
    apply(tar, root)
    assert (root / "f").read_text() == "new"


def test_bookkeeping_of_aufs_is_left_out(root, tar, tree):
    apply(tar.folder(b".wh..wh.plnk").file(b".wh..wh.plnk/1.2").file(b".wh..wh.aufs").file(b"a"), root)
    assert tree(root) == {"a": "f"}


# What must not happen

HOSTILE = {
    "parent": (lambda t: t.file(b"../outside/precious", b"x"), "../outside/precious: a path with .."),
    "parent inside": (lambda t: t.folder(b"a").file(b"a/../../outside/precious", b"x"), "a path with .."),
    "parent of a folder": (lambda t: t.folder(b"..", mode=0o777), "..: a path with .."),
    "parent by pax": (lambda t: t.pax({b"path": b"../outside/precious"}).file(b"ok", b"x"), "a path with .."),
    "parent by prefix": (lambda t: t.file(b"precious", b"x", prefix=b"../outside"), "a path with .."),
    "parent by a GNU name": (lambda t: t.file(b"L", b"../outside/precious\0", kind=b"L").file(b"ok"), "a path with .."),
    "through a link": (lambda t: t.symlink(b"l", b"../outside").file(b"l/precious", b"x"), "l is a link or no folder"),
    "through an absolute link": (lambda t: t.symlink(b"l", b"/tmp").file(b"l/x", b"x"), "l is a link or no folder"),
    "through a deep link": (
        lambda t: t.folder(b"a").symlink(b"a/l", b"../..").file(b"a/l/outside/precious", b"x"),
        "a/l is a link or no folder",
    ),
    "a folder below a link": (lambda t: t.symlink(b"l", b"../outside").folder(b"l/d"), "l is a link or no folder"),
    "a link below a link": (
        lambda t: t.symlink(b"l", b"../outside").symlink(b"l/precious", b"x"),
        "l is a link or no folder",
    ),
    "a folder swapped for a link": (
        lambda t: t.folder(b"d").file(b"d/f").symlink(b"d", b"../outside").file(b"d/precious", b"x"),
        "d: takes the place of a folder",
    ),
    "a whiteout through a link": (
        lambda t: t.symlink(b"l", b"../outside").file(b"l/.wh.precious"),
        "l is a link or no folder",
    ),
    "an opaque mark through a link": (
        lambda t: t.symlink(b"l", b"../outside").file(b"l/.wh..wh..opq"),
        "l is a link or no folder",
    ),
    "whiteout of the parent": (lambda t: t.file(b".wh..."), "a whiteout without a name"),
    "whiteout of itself": (lambda t: t.file(b"d/.wh.."), "a whiteout without a name"),
    "whiteout of nothing": (lambda t: t.file(b".wh."), "a whiteout without a name"),
    "below a whiteout": (lambda t: t.file(b".wh.a/b"), "a whiteout has nothing below it"),
    "hard link out": (lambda t: t.hard_link(b"h", b"../outside/precious"), "a path with .."),
    "hard link to an absolute path": (lambda t: t.hard_link(b"h", b"/etc/passwd"), "etc does not exist in this layer"),
    "hard link through a link": (
        lambda t: t.symlink(b"l", b"../outside").hard_link(b"h", b"l/precious"),
        "l is a link or no folder",
    ),
    "hard link to a folder": (lambda t: t.folder(b"d").hard_link(b"h", b"d"), "which is a folder"),
    "hard link to the root": (lambda t: t.hard_link(b"h", b"./"), "a hard link to ./"),
    "hard link to nothing": (lambda t: t.hard_link(b"h", b""), "a hard link to nothing"),
    "hard link to a lower layer": (lambda t: t.hard_link(b"h", b"f"), "f, which does not exist in this layer"),
    "hard link to itself": (lambda t: t.file(b"f", b"1").hard_link(b"f", b"./f"), "a hard link to ./f"),
    "hard link to a whiteout": (lambda t: t.file(b".wh.w").hard_link(b"h", b"w"), "a folder or a whiteout"),
    "a device of overlayfs": (lambda t: t.device(b"w", (0, 0)), "which overlayfs takes for a whiteout"),
    "a device out of range": (
        lambda t: t.raw(bytes(t)[:0]).device(b"d", (0o7777777, 0o7777777)),
        "d: device 2097151:2097151 is out of range",
    ),
    "below a device": (lambda t: t.device(b"null", (1, 3)).file(b"null/x"), "null is a link or no folder"),
    "below a pipe": (lambda t: t.fifo(b"p").file(b"p/x"), "p is a link or no folder"),
    "below a file": (lambda t: t.file(b"f").file(b"f/x"), "f is a link or no folder"),
    "a file over a folder": (lambda t: t.folder(b"d").file(b"d/x").file(b"d"), "takes the place of a folder"),
    "a file as root": (lambda t: t.file(b"./."), "the root is no file"),
    "a link as root": (lambda t: t.symlink(b".", b"/"), "the root is no symlink"),
    "no name": (lambda t: t.file(b""), "the root is no file"),
    "a NUL in a name": (lambda t: t.pax({b"path": b"a\0b"}).file(b"x"), "a name with a NUL byte"),
    "a NUL in a link": (lambda t: t.pax({b"linkpath": b"a\0b"}).symlink(b"x", b"y"), "a name with a NUL byte"),
    "an empty link": (lambda t: t.symlink(b"l", b""), "a link target must have 1 to 4095 bytes"),
    "a huge link": (lambda t: t.pax({b"linkpath": b"x" * 4096}).symlink(b"l", b"y"), "1 to 4095 bytes"),
    "a long component": (lambda t: t.pax({b"path": b"x" * 256}).file(b"y"), "a name over 255 bytes"),
    "sparse": (lambda t: t.file(b"s", kind=b"S"), "sparse files do not belong in layers"),
    "sparse by pax": (lambda t: t.pax({b"GNU.sparse.major": b"1"}).file(b"s"), "sparse files do not belong"),
    "an unknown type": (lambda t: t.file(b"v", kind=b"V"), "unknown entry type V"),
    "a negative size": (lambda t: t.file(b"f", size=b"\xff" * 12), "f: size -1 is out of range"),
    "a size that is no number": (lambda t: t.file(b"f", size=b"12x45"), "is not a number"),
    "a negative pax size": (lambda t: t.pax({b"size": b"-1"}).file(b"f"), "size -1 is not a number"),
    "a broken pax length": (lambda t: t.pax(b"999 path=x\n").file(b"f"), "a broken pax header"),
    "a pax record of no length": (lambda t: t.pax(b"0 a=b\n").file(b"f"), "a broken pax header"),
    "a pax record that overlaps": (lambda t: t.pax(b"3 a=b\n").file(b"f"), "a broken pax header"),
    "a pax length of many digits": (lambda t: t.pax(b"1" * 400).file(b"f"), "a broken pax header"),
    "a pax record without key": (lambda t: t.pax(b"5 =b\n").file(b"f"), "a broken pax header"),
    "a pax time that is no time": (lambda t: t.pax({b"mtime": b"nan"}).file(b"f"), "f: mtime nan is not a time"),
    "a pax owner that is no number": (lambda t: t.pax({b"uid": b"0x0"}).file(b"f"), "uid 0x0 is not a number"),
    "an owner out of range": (lambda t: t.pax({b"uid": b"4294967295"}).file(b"f"), "uid 4294967295 is out of range"),
    "a global path": (lambda t: t.pax({b"path": b"x"}, kind=b"g").file(b"f"), "a global header that sets path"),
    "a header without an entry": (lambda t: t.pax({b"path": b"x"}), "ends after an extension header"),
    "a wrong checksum": (lambda t: t.file(b"f", checksum=b"0000001\0"), "a header with a wrong checksum"),
    "noise": (lambda t: t.raw(random.Random(1).randbytes(4096)), "checksum"),
    "control characters": (lambda t: t.file(b"../\x1b[2J\n"), "../\\x1b[2J\\n: a path with .."),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_entry_is_refused_with_its_name_and_rule(root, tar, case):
    write, says = HOSTILE[case]
    write(tar)
    with pytest.raises(LayerEntryError) as caught:
        apply(tar, root)
    assert says in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_device_is_replaced_and_never_written_to(root, tar):
    tar.device(b"full", (1, 7)).file(b"full", b"data")  # /dev/full refuses every write
    apply(tar, root)
    assert (root / "full").read_text() == "data"


def test_a_pipe_is_replaced_and_never_waited_for(root, tar):
    apply(tar.fifo(b"p").file(b"p", b"data").fifo(b"q").folder(b"q"), root)
    assert (root / "p").read_text() == "data"


def test_a_link_is_replaced_and_never_followed(root, tar):
    tar.symlink(b"l", b"../outside/precious").file(b"l", b"x").symlink(b"d", b"../outside").folder(b"d", mode=0o777)
    apply(tar, root)
    assert (root / "l").read_text() == "x"
    assert not (root / "d").is_symlink()


def test_a_hard_link_to_a_symlink_links_the_link(root, tar):
    apply(tar.symlink(b"l", b"../outside/precious").hard_link(b"h", b"l"), root)
    assert (root / "h").readlink() == Path("../outside/precious")


LIMITS = {
    "max_layer_bytes": (lambda t: t.file(b"f", b"x" * 5000), {"max_layer_bytes": 4096}),
    "max_layer_bytes by its header": (
        lambda t: t.file(b"f", size=b"77777777777\0"),
        {"max_layer_bytes": 1 << 20},
    ),
    "max_layer_bytes after the end": (lambda t: t.raw(bytes(10000)), {"max_layer_bytes": 4096}),
    "max_entries": (lambda t: [t.file(b"f%d" % n) for n in range(11)], {"max_entries": 10}),
    "max_entries of headers": (lambda t: [t.pax({b"comment": b""}, kind=b"g") for _ in range(11)], {"max_entries": 10}),
    "max_depth": (lambda t: t.file(b"a/" * 40 + b"f"), {"max_depth": 40}),
    "max_path_bytes": (lambda t: t.pax({b"path": b"a/" * 2500 + b"f"}).file(b"f"), {}),
    "max_path_bytes of a link": (lambda t: t.pax({b"linkpath": b"a/" * 2500 + b"f"}).hard_link(b"h", b"f"), {}),
    "max_header_bytes": (lambda t: t.pax({b"comment": b"x" * 5000}).file(b"f"), {"max_header_bytes": 4096}),
    "max_header_bytes by its size": (lambda t: t.file(b"x", kind=b"x", size=b"77777777777\0"), {}),
    "max_header_bytes in sum": (
        lambda t: [t.pax({b"comment": b"x" * 500}) for _ in range(10)],
        {"max_header_bytes": 4096},
    ),
}


@pytest.mark.parametrize("case", LIMITS)
def test_what_is_over_a_limit_is_refused_with_its_name(root, tar, case):
    write, limits = LIMITS[case]
    write(tar)
    with pytest.raises(LayerLimitError) as caught:
        apply(tar, root, **limits)
    assert case.split()[0] in str(caught.value)


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_tar_never_does_worse_than_an_error(root, new_tar, seed):
    """Bits of a good archive are turned; whatever is made of it stays inside."""
    chance = random.Random(seed)
    tar = new_tar().folder(b"a").file(b"a/f", b"x" * 700).symlink(b"l", b"../outside").hard_link(b"h", b"a/f")
    tar.pax({b"path": b"long/" * 30 + b"x", b"SCHILY.xattr.user.a": b"b"}).file(b"x").file(b"a/.wh.g")
    data = bytearray(bytes(tar))
    for _ in range(chance.randint(1, 30)):
        at = chance.randrange(len(data))
        data[at] = chance.randrange(256)
        block = at - at % 512  # a right checksum lets the damage through to the parser
        data[block + 148 : block + 156] = b" " * 8
        data[block + 148 : block + 156] = b"%06o\0 " % sum(data[block : block + 512])
    with suppress(LayerEntryError, LayerLimitError, OSError):
        apply(bytes(data), root, max_layer_bytes=1 << 20)
