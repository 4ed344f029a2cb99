"""The compressed side of a layer: counted, digested and decompressed while it streams, in constant memory.

Formats are told by their first bytes, as other engines do, for registries hold layers whose media type is wrong: gzip
(RFC 1952, any number of members), zstd (RFC 8878, any number of frames, skippable ones too), otherwise a plain tar.
Imported by the unpacking child: standard library, isal and zstd only.
"""

from __future__ import annotations

import hashlib
import io
import sys
from typing import TYPE_CHECKING, Protocol

try:
    from isal import isal_zlib as zlib  # twice as fast, same interface
except ImportError:  # pragma: no cover - no wheel for this machine
    import zlib  # type: ignore[no-redef]

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Callable

_ZLIB_ERROR: type[Exception] = zlib.error  # type: ignore[assignment,unused-ignore] # its stub names an instance
CHUNK_BYTES = 256 << 10
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"  # after one byte from 0x50 to 0x5f
_ZSTD_WINDOW_LOG = 27  # what the zstd tool accepts unasked: 128 MiB


class BrokenLayerError(Exception):
    """The layer's bytes are not what the manifest says: truncated, wrong size or digest, not decompressible."""


class DigestedInput:
    """Reads exactly ``size`` bytes through ``read``, digesting them; then says the end."""

    def __init__(self, read: Callable[[int], bytes], size: int) -> None:
        self._read, self._size = read, size
        self._sha256 = hashlib.sha256()
        self.done_bytes = 0

    def read(self) -> bytes:
        wanted = min(CHUNK_BYTES, self._size - self.done_bytes)
        chunk = self._read(wanted) if wanted else b""
        if wanted and not chunk:
            raise BrokenLayerError(f"ends after {self.done_bytes} of {self._size} bytes")
        self.done_bytes += len(chunk)
        self._sha256.update(chunk)
        return chunk

    def hexdigest(self) -> str:
        return self._sha256.hexdigest()


class _Decompressor(Protocol):
    """What gzip and zstd share: one member or frame after the other, output in bounded pieces."""

    def feed(self, data: bytes) -> None: ...
    def take(self, limit: int) -> bytes: ...
    def finish(self) -> None: ...


class _Plain:
    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> None:
        self._data = data

    def take(self, limit: int) -> bytes:
        taken, self._data = self._data[:limit], self._data[limit:]
        return taken

    def finish(self) -> None:
        pass


class _Gzip:
    def __init__(self) -> None:
        self._member = zlib.decompressobj(31)
        self._rest = b""

    def feed(self, data: bytes) -> None:
        self._rest += data

    def take(self, limit: int) -> bytes:
        while self._rest:
            if self._member.eof:
                self._member = zlib.decompressobj(31)
            if taken := self._step(limit):
                return taken
        # Output can be left inside the member when its input is used up.
        return b"" if self._member.eof else self._step(limit)

    def _step(self, limit: int) -> bytes:
        try:
            taken: bytes = self._member.decompress(self._rest, limit)
        except _ZLIB_ERROR as exc:
            raise BrokenLayerError(f"is not gzip all through: {exc}") from None
        self._rest = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
        return taken

    def finish(self) -> None:
        if not self._member.eof:
            raise BrokenLayerError("is a truncated gzip stream")


class _Zstd:
    def __init__(self) -> None:
        self._frame = self._new()
        self._rest = b""
        self._started = False

    @staticmethod
    def _new() -> zstd.ZstdDecompressor:
        return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})

    def feed(self, data: bytes) -> None:
        self._rest += data

    def take(self, limit: int) -> bytes:
        while True:
            if self._frame.eof:
                self._rest = self._frame.unused_data + self._rest
                self._frame, self._started = self._new(), False
            if self._frame.needs_input and not self._rest:
                return b""
            data, self._rest = self._rest, b""
            self._started = self._started or bool(data)
            try:
                taken = self._frame.decompress(data, limit)
            except zstd.ZstdError as exc:
                raise BrokenLayerError(f"is not zstd all through: {exc}") from None
            if taken:
                return taken

    def finish(self) -> None:
        if self._started and not self._frame.eof:
            raise BrokenLayerError("is a truncated zstd stream")


def _decompressor(start: bytes) -> _Decompressor:
    if start.startswith(_GZIP):
        return _Gzip()
    if start.startswith(_ZSTD) or (start[1:4] == _ZSTD_SKIPPABLE and start[0] & 0xF0 == 0x50):
        return _Zstd()
    return _Plain()


class LayerStream(io.RawIOBase):
    """The uncompressed tar, digested as it is read; ``diff_id`` is right once it has been read to the end."""

    def __init__(self, source: DigestedInput) -> None:
        self._source = source
        self._sha256 = hashlib.sha256()
        self._inner: _Decompressor | None = None
        self._ended = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        limit = CHUNK_BYTES if size < 0 else min(size, CHUNK_BYTES)
        inner = self._inner or self._open()
        while not (taken := inner.take(limit)) and not self._ended:
            if chunk := self._source.read():
                inner.feed(chunk)
            else:
                inner.finish()
                self._ended = True
        self._sha256.update(taken)
        return taken

    def _open(self) -> _Decompressor:
        start = b""
        while len(start) < 4 and (chunk := self._source.read()):
            start += chunk
        self._inner = _decompressor(start)
        self._inner.feed(start)
        return self._inner

    @property
    def diff_id(self) -> str:
        return self._sha256.hexdigest()
