"""A tar of two small files, written in one way and read strictly.

An archive is untrusted: it holds exactly the files that are asked for, each once and regular, in headers of POSIX ustar
and nothing else (no links, devices, folders, extended headers, sparse files), and only zeros after them. Nothing is
ever unpacked to a disk.

Source: POSIX.1-2017, pax, "ustar Interchange Format".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nanocloud.errors import InvalidError, LimitExceededError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_FILE_BYTES = 2 * 1024 * 1024
_BLOCK = 512
_SUM = slice(148, 156)


def pack(files: Mapping[str, bytes]) -> bytes:
    """The archive of these files, the same for the same files."""
    parts = []
    for name, data in files.items():
        parts += [_header(name, len(data)), data, bytes(-len(data) % _BLOCK)]
    return b"".join([*parts, bytes(2 * _BLOCK)])


def unpack(archive: bytes, names: tuple[str, ...]) -> dict[str, bytes]:
    """The files of those names.

    Raises:
        InvalidError: anything else than those files is in it, or one is missing; says what.
        LimitExceededError: a file is larger than 2 MiB.
    """
    found: dict[str, bytes] = {}
    at = 0
    while len(archive) - at >= _BLOCK and any(archive[at : at + _BLOCK]):
        name, size = _read_header(archive[at : at + _BLOCK])
        if name not in names or name in found:
            raise InvalidError(f"the archive holds {name[:80]!r}; it must hold {' and '.join(names)}, each once")
        if size > MAX_FILE_BYTES:
            raise LimitExceededError(f"{name} has {size} bytes; the limit is {MAX_FILE_BYTES}")
        at += _BLOCK
        if len(archive) - at < size:
            raise InvalidError(f"the archive ends within {name}")
        found[name] = archive[at : at + size]
        at += size + -size % _BLOCK
    if missing := [name for name in names if name not in found]:
        raise InvalidError(f"the archive is no profile export: it holds no {' and no '.join(missing)}")
    if any(archive[at:]):
        raise InvalidError("the archive has something after its files")
    return found


def _header(name: str, size: int) -> bytes:
    block = bytearray(
        name.encode().ljust(100, b"\0")
        + b"0000600\0" + b"0000000\0" * 2
        + b"%011o\0" % size
        + b"%011o\0" % 0
        + b" " * 8
        + b"0"
        + bytes(100)
        + b"ustar\x0000"
        + b"root".ljust(32, b"\0") * 2
        + b"0000000\0" * 2
        + bytes(167)
    )  # fmt: skip
    block[_SUM] = b"%06o\0 " % sum(block)
    return bytes(block)


def _read_header(block: bytes) -> tuple[str, int]:
    """Name and size of a regular file."""
    blank = block[: _SUM.start] + b" " * 8 + block[_SUM.stop :]
    if _number(block[_SUM]) != sum(blank) or block[257:262] != b"ustar":
        raise InvalidError("the archive is no tar file in the ustar format")
    name = block[:100].rstrip(b"\0").decode("utf-8", "backslashreplace")
    if block[156:157] not in (b"0", b"\0") or any(block[345:500]):
        raise InvalidError(f"the archive holds {name[:80]!r}, which is no plain regular file")
    size = _number(block[124:136])
    if size is None:
        raise InvalidError(f"the archive says no size for {name[:80]!r}")
    return name, size


def _number(field: bytes) -> int | None:
    text = field.strip(b" \0")
    return int(text, 8) if text and not text.strip(b"01234567") else None
