"""Layers that must be refused, by the hundred: ``CASES`` says how each is made and what the error says."""

from __future__ import annotations

import gzip
import itertools
import random
import sys
from collections.abc import Callable
from typing import Any

import attrs

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Write = Callable[[Any], Any]


@attrs.frozen(kw_only=True)
class HostileLayer:
    write: Write | None = None
    """Writes entries into a ``Tar``."""
    compress: Callable[[bytes], bytes] | None = None
    blob: bytes | None = None
    """The compressed layer itself, where it is no tar at all."""
    spoil: Callable[[bytes], bytes] | None = None
    """Changes the compressed layer."""
    digested: bool = False
    """Whether the manifest has size and digest of the changed one."""
    says: str = ""


LONG = b"x" * 256
DEEP = b"d/" * 129 + b"f"
NAMES: dict[str, tuple[bytes, str]] = {
    "parent": (b"../outside/precious", "a path with .."),
    "parent, absolute": (b"/../../../../etc/hostile", "a path with .."),
    "parent inside": (b"a/../../outside/precious", "a path with .."),
    "parent at the end": (b"a/..", "a path with .."),
    "parent alone": (b"..", "a path with .."),
    "parent with dots": (b"./././../outside/precious", "a path with .."),
    "parent with slashes": (b"a//..//..//outside", "a path with .."),
    "long component": (LONG, "a name over 255 bytes"),
    "long component below": (b"a/" + LONG + b"/b", "a name over 255 bytes"),
    "long path": (b"abcdefg/" * 513, "max_path_bytes"),
    "deep": (DEEP, "max_depth"),
    "NUL": (b"a\0b", "a name with a NUL byte"),
    "below a file": (b"file/x", "is a link or no folder"),
    "below a device": (b"device/x", "is a link or no folder"),
    "below a pipe": (b"pipe/x", "is a link or no folder"),
    "below a whiteout": (b".wh.a/x", "a whiteout has nothing below it"),
}
KINDS: dict[str, Callable[[Any, bytes], Any]] = {
    "file": lambda t, name: t.file(name, b"x"),
    "folder": lambda t, name: t.folder(name, mode=0o777),
    "symlink": lambda t, name: t.symlink(name, b"/etc/passwd"),
    "hard link": lambda t, name: t.hard_link(name, b"file"),
    "device": lambda t, name: t.device(name, (1, 3)),
    "block device": lambda t, name: t.device(name, (8, 0), kind=b"4"),
    "pipe": lambda t, name: t.fifo(name),
}


def _at(name: bytes, kind: str) -> Write:
    def write(tar: Any) -> None:
        tar.file(b"file").device(b"device", (1, 3)).fifo(b"pipe")
        tar.pax({b"path": name})
        KINDS[kind](tar, b"short")

    return write


LINKS = (
    b"..",
    b"/",
    b"../outside",
    b"/tmp",
    b".",
    b"/proc/self/root",
    b"/proc/self/cwd",
    b"a/../..",
    b"l",
    b"/dev/fd/3",
)
BELOW: dict[str, Callable[[Any], Any]] = {
    "a file": lambda t: t.file(b"l/precious", b"x"),
    "a folder": lambda t: t.folder(b"l/made"),
    "a link": lambda t: t.symlink(b"l/made", b"x"),
    "a hard link": lambda t: t.file(b"f").hard_link(b"l/made", b"f"),
    "a hard link's target": lambda t: t.hard_link(b"made", b"l/precious"),
    "a device": lambda t: t.device(b"l/made", (1, 3)),
    "a pipe": lambda t: t.fifo(b"l/made"),
    "a whiteout": lambda t: t.file(b"l/.wh.precious"),
    "an opaque mark": lambda t: t.file(b"l/.wh..wh..opq"),
}


def _through(link: bytes, below: str) -> Write:
    return lambda tar: BELOW[below](tar.folder(b"a").symlink(b"l", link))


FIELDS: dict[str, tuple[str, tuple[int, int]]] = {
    "mode": ("mode", (100, 108)),
    "uid": ("uid", (108, 116)),
    "gid": ("gid", (116, 124)),
    "size": ("size", (124, 136)),
    "mtime": ("mtime", (136, 148)),
}
NUMBERS = {
    "letters": b"zzz",
    "digits that are not octal": b"9",
    "a sign": b"-1",
    "hexadecimal": b"0x1",
    "bytes": b"\x01\x02",
}


def _field(where: tuple[int, int], value: bytes) -> Write:
    def write(tar: Any) -> None:
        from_tar = type(tar)().file(b"f")
        block = bytearray(bytes(from_tar)[:512])
        start, end = where
        block[start:end] = value.ljust(end - start, b"\0")
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        tar.raw(bytes(block))

    return write


PAX: dict[str, tuple[dict[bytes, bytes] | bytes, str]] = {
    "length too long": (b"999 path=x\n", "a broken pax header"),
    "length zero": (b"0 a=b\n", "a broken pax header"),
    "length too short": (b"3 a=b\n", "a broken pax header"),
    "length of many digits": (b"1" * 4000, "a broken pax header"),
    "length negative": (b"-8 a=b\n", "a broken pax header"),
    "no key": (b"5 =b\n", "a broken pax header"),
    "no equals": (b"5 ab\n", "a broken pax header"),
    "no newline": (b"6 a=bc", "a broken pax header"),
    "noise": (bytes(range(256)), "a broken pax header"),
    "size of letters": ({b"size": b"many"}, "is not a number"),
    "size negative": ({b"size": b"-1"}, "is not a number"),
    "size beyond all": ({b"size": b"9" * 19}, "out of range"),
    "size of other digits": ({b"size": "٣".encode()}, "is not a number"),
    "size larger than the layer": ({b"size": b"4611686018427387904"}, "max_layer_bytes"),
    "uid negative": ({b"uid": b"-5"}, "is not a number"),
    "uid beyond": ({b"uid": b"4294967295"}, "out of range"),
    "gid beyond": ({b"gid": b"4294967295"}, "out of range"),
    "gid of letters": ({b"gid": b"wheel"}, "is not a number"),
    "mtime that is none": ({b"mtime": b"nan"}, "is not a time"),
    "mtime without end": ({b"mtime": b"1" * 400}, "is not a time"),
    "mtime exponent": ({b"mtime": b"1e9"}, "is not a time"),
    "mtime infinite": ({b"mtime": b"inf"}, "is not a time"),
    "sparse 1.0": ({b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0"}, "sparse files"),
    "sparse name": ({b"GNU.sparse.name": b"../x"}, "sparse files"),
    "sparse map": ({b"GNU.sparse.map": b"0,1,2"}, "sparse files"),
}
GLOBALS = (b"path", b"linkpath", b"size", b"GNU.sparse.name", b"SCHILY.xattr.security.capability")


def _pax(records: dict[bytes, bytes] | bytes) -> Write:
    return lambda tar: tar.pax(records).file(b"f", b"x")


STRUCTURE: dict[str, tuple[Write, str]] = {
    "a folder swapped for a link": (
        lambda t: t.folder(b"d").file(b"d/f").symlink(b"d", b"../outside").file(b"d/precious", b"x"),
        "takes the place of a folder",
    ),
    "a folder swapped for a file": (lambda t: t.folder(b"d").file(b"d"), "takes the place of a folder"),
    "a folder swapped for a device": (lambda t: t.folder(b"d").device(b"d", (1, 3)), "takes the place of a folder"),
    "a link as root": (lambda t: t.symlink(b"./", b"/"), "the root is no symlink"),
    "a device as root": (lambda t: t.device(b".", (1, 3)), "the root is no character device"),
    "a hard link to the root": (lambda t: t.hard_link(b"h", b"/"), "a hard link to"),
    "a hard link to a folder": (lambda t: t.folder(b"d").hard_link(b"h", b"d"), "which is a folder"),
    "a hard link to itself": (lambda t: t.hard_link(b"h", b"h"), "a hard link to h"),
    "a hard link out": (lambda t: t.hard_link(b"h", b"../outside/precious"), "a path with .."),
    "a hard link to the host": (lambda t: t.hard_link(b"h", b"/etc/shadow"), "does not exist in this layer"),
    "a hard link to a whiteout": (lambda t: t.file(b".wh.w").hard_link(b"h", b"w"), "a folder or a whiteout"),
    "an overlay whiteout": (lambda t: t.device(b"w", (0, 0)), "takes for a whiteout"),
    "a whiteout of nothing": (lambda t: t.file(b".wh."), "a whiteout without a name"),
    "a whiteout of the folder": (lambda t: t.file(b"a/.wh.."), "a whiteout without a name"),
    "a whiteout of the parent": (lambda t: t.file(b"a/.wh..."), "a whiteout without a name"),
    "a device number out of range": (lambda t: t.device(b"d", (0o7777777, 0)), "out of range"),
    "an empty link": (lambda t: t.symlink(b"l", b""), "a link target"),
    "an endless link": (lambda t: t.pax({b"linkpath": b"x" * 5000}).symlink(b"l", b"x"), "a link target"),
    "a wrong checksum": (lambda t: t.file(b"f", checksum=b"0000001\0"), "checksum"),
    "a checksum that is no number": (lambda t: t.file(b"f", checksum=b"zzzzzz\0 "), "checksum"),
    "an entry cut short": (lambda t: t.file(b"f", size=b"00000100000\0"), "in the middle of an entry"),
    "an extension without entry": (lambda t: t.pax({b"path": b"x"}), "ends after an extension header"),
    "a long name without entry": (lambda t: t.file(b"L", b"name\0", kind=b"L"), "ends after an extension header"),
    "noise": (lambda t: t.raw(random.Random(7).randbytes(65536)), "checksum"),
    "control characters": (lambda t: t.file(b"../\x1b[2J\r\n\x07"), "\\x1b[2J"),
    "an invalid name": (lambda t: t.file(b"../\xff\xfe"), "\\xff\\xfe"),
    "an attribute too large": (
        lambda t: t.pax({b"SCHILY.xattr.user.a": b"x" * 70000}).file(b"f"),
        "cannot be unpacked: f:",
    ),
}
UNKNOWN_TYPES = b"SVMND8AIZ"

MIB = 1 << 20


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, 1, mtime=0)


def _zeros(megabytes: int) -> Write:
    return lambda tar: tar.file(b"zeros", bytes(megabytes * MIB))


def _many(count: int, write: Callable[[Any, int], Any]) -> Write:
    def all_of(tar: Any) -> None:
        for number in range(count):
            write(tar, number)

    return all_of


def _deep_folders(tar: Any, number: int) -> None:
    tar.pax({b"path": b"".join(b"%d-%d/" % (number, depth) for depth in range(120)) + b"f"}).file(b"f")


# With the limits of the suite: 64 MiB and 2000 entries a layer.
BOMBS: dict[str, tuple[Write, Callable[[bytes], bytes], str]] = {
    "gzip of zeros": (_zeros(80), _gzip, "max_layer_bytes"),
    "zstd of zeros": (_zeros(80), zstd.compress, "max_layer_bytes"),
    "plain zeros": (_zeros(80), bytes, "max_layer_bytes"),
    "padding without end": (lambda t: t.file(b"f").raw(bytes(80 * MIB)), _gzip, "max_layer_bytes"),
    "files without end": (_many(2001, lambda t, n: t.file(b"%d" % n)), _gzip, "max_entries"),
    "folders without end": (_many(2001, lambda t, n: t.folder(b"%d" % n)), _gzip, "max_entries"),
    "global headers without end": (
        _many(2001, lambda t, n: t.pax({b"comment": b""}, kind=b"g")),
        _gzip,
        "max_entries",
    ),
    "one entry again and again": (_many(2001, lambda t, n: t.file(b"f")), _gzip, "max_entries"),
    "folders that are only implied": (_many(60, _deep_folders), _gzip, "max_implied_bytes"),
    "an extension header of a gigabyte": (
        lambda t: t.file(b"x", kind=b"x", size=b"10000000000\0"),
        _gzip,
        "max_header_bytes",
    ),
    "extension headers in sum": (_many(30, lambda t, n: t.pax({b"comment": b"x" * 50_000})), _gzip, "max_header_bytes"),
    "a long name of a gigabyte": (lambda t: t.file(b"x", kind=b"L", size=b"10000000000\0"), _gzip, "max_header_bytes"),
    "a long link of a gigabyte": (lambda t: t.file(b"x", kind=b"K", size=b"10000000000\0"), _gzip, "max_header_bytes"),
    "a file of an exabyte": (
        lambda t: t.file(b"x", size=b"\x80\0\0\0\x0f\xff\xff\xff\xff\xff\xff\xff"),
        _gzip,
        "max_layer_bytes",
    ),
}


def _cut(share: float) -> Callable[[bytes], bytes]:
    return lambda data: data[: int(len(data) * share)]


def _flip(share: float) -> Callable[[bytes], bytes]:
    def flipped(data: bytes) -> bytes:
        at = int((len(data) - 1) * share)
        return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]

    return flipped


def _good(tar: Any) -> None:
    tar.folder(b"etc").file(b"etc/conf", random.Random(3).randbytes(200_000)).symlink(b"l", b"etc")


def _all() -> dict[str, HostileLayer]:
    cases: dict[str, HostileLayer] = {}
    for (name, (path, says)), kind in itertools.product(NAMES.items(), KINDS):
        cases[f"name: {name}, {kind}"] = HostileLayer(write=_at(path, kind), says=says)
    for link, below in itertools.product(LINKS, BELOW):
        says = "is a link or no folder"
        cases[f"through {link.decode()}: {below}"] = HostileLayer(write=_through(link, below), says=says)
    for (field, (_, where)), (number, value) in itertools.product(FIELDS.items(), NUMBERS.items()):
        cases[f"field {field}: {number}"] = HostileLayer(write=_field(where, value), says="is not a number")
    for name, (records, says) in PAX.items():
        cases[f"pax: {name}"] = HostileLayer(write=_pax(records), says=says)
    for key in GLOBALS:
        cases[f"global: {key.decode()}"] = HostileLayer(
            write=lambda tar, key=key: tar.pax({key: b"1"}, kind=b"g").file(b"f"), says="a global header that sets"
        )
    for name, (write, says) in STRUCTURE.items():
        cases[f"structure: {name}"] = HostileLayer(write=write, says=says)
    for kind in UNKNOWN_TYPES:
        cases[f"type: {chr(kind)}"] = HostileLayer(
            write=lambda tar, kind=kind: tar.file(b"f", kind=bytes([kind])),
            says="sparse files" if kind == ord("S") else "unknown entry type",
        )
    for name, (write, compress, says) in BOMBS.items():
        cases[f"bomb: {name}"] = HostileLayer(write=write, compress=compress, says=says)
    for format_name, compress in (("gzip", _gzip), ("zstd", zstd.compress), ("plain", bytes)):
        for share in (0.0, 0.01, 0.5, 0.99):
            cases[f"{format_name} cut at {share:.0%}"] = HostileLayer(
                write=_good, compress=compress, spoil=_cut(share), digested=True
            )
        for share in (0.0, 0.1, 0.5, 0.9, 1.0):
            for digested in (True, False):
                cases[f"{format_name} changed at {share:.0%}, {digested}"] = HostileLayer(
                    write=_good, compress=compress, spoil=_flip(share), digested=digested
                )
        cases[f"{format_name} with more behind it"] = HostileLayer(
            write=_good, compress=compress, spoil=lambda data: data + b"more", digested=True
        )
    for name, blob in {
        "gzip header alone": b"\x1f\x8b\x08\0\0\0\0\0\0\xff",
        "gzip of noise": b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + random.Random(1).randbytes(5000),
        "gzip of another method": b"\x1f\x8b\x07" + bytes(100),
        "gzip name without end": b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * 100_000,
        "gzip twice": _gzip(_gzip(bytes(10240))),
        "gzip and noise": _gzip(bytes(10240)) + b"noise and more noise",
        "zstd magic alone": b"\x28\xb5\x2f\xfd",
        "zstd of noise": b"\x28\xb5\x2f\xfd" + random.Random(2).randbytes(5000),
        "zstd with a huge window": b"\x28\xb5\x2f\xfd\x00\xb8" + random.Random(2).randbytes(500),
        "zstd skippable without end": b"\x50\x2a\x4d\x18\xff\xff\xff\xff" + bytes(1000),
        "bzip2": b"BZh91AY&SY" + bytes(2000),
        "xz": b"\xfd7zXZ\0" + bytes(2000),
        "a zip": b"PK\x03\x04" + bytes(2000),
        "text": b"<html>not found</html>\n" * 100,
    }.items():
        cases[f"stream: {name}"] = HostileLayer(blob=blob)
    return cases


CASES = _all()
