"""The unpacking child: ``python -I -m nanocloud_dockyard._unpack JOB``, the compressed layer on standard input.

A process of its own, because hostile bytes meet decompressors here, because the node's event loop must stay free, and
because two layers then use two cores. It sees only the folder it fills: chroot is a second wall behind the walk by
descriptors. JOB is JSON: ``root_fd`` (an inherited descriptor of an empty folder), ``size_bytes``, ``sha256`` (of the
input), ``diff_id`` (of the tar), ``limits``.

Standard output: a line with the number of input bytes done, now and then; last, one line of JSON: ``{"stats": ...}`` or
``{"error": ..., "kind": "layer" | "host"}``. Exit status 0 only after stats. When nobody reads it the child ends.

It imports the standard library, isal and zstd only: importing the node's framework would cost more than most layers.
"""

from __future__ import annotations

import json
import os
import resource
import sys

from nanocloud_dockyard.decompress import BrokenLayerError, DigestedInput, LayerStream
from nanocloud_dockyard.limits import MIB, UnpackLimits
from nanocloud_dockyard.readahead import ReadAhead
from nanocloud_dockyard.tarstream import LayerEntryError, LayerLimitError
from nanocloud_dockyard.unpack import LayerStats, apply_layer

_REPORT_BYTES = 2 * MIB
_MEMORY_BYTES = 176 * MIB  # of data; with code under 200. A zstd window takes up to 128.
_TOO_MUCH = f"needs more than {_MEMORY_BYTES // MIB} MiB of memory to unpack: too many folders"


class _Reporting(LayerStream):
    """Says how far it is, so that the parent can show it and a dead parent ends the child (EPIPE)."""

    def __init__(self, source: DigestedInput) -> None:
        super().__init__(source)
        self._unreported = 0
        self._input = source

    def read(self, size: int = -1) -> bytes:
        data = super().read(size)
        self._unreported += len(data)
        if self._unreported >= _REPORT_BYTES:
            self._unreported = 0
            _say(str(self._input.done_bytes))
        return data


def _say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


def _lock_in(root_fd: int) -> None:
    """From here on the layer's folder is all there is. Nothing may be imported: the layer could offer modules."""
    sys.path.clear()
    sys.meta_path.clear()
    os.fchdir(root_fd)
    os.chroot(".")
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _unpack(job: dict[str, object]) -> LayerStats:
    root_fd, size = job["root_fd"], job["size_bytes"]
    assert isinstance(root_fd, int)
    assert isinstance(size, int)
    source = DigestedInput(lambda limit: os.read(0, limit), size)
    layer = _Reporting(source)
    limits = UnpackLimits(**job["limits"])  # type: ignore[arg-type]
    _lock_in(root_fd)
    stats = apply_layer(ReadAhead(layer.read), root_fd, limits)  # type: ignore[arg-type]
    for what, found in (("sha256", source.hexdigest()), ("diff_id", layer.diff_id)):
        if found != job[what]:
            raise BrokenLayerError(f"has {what} {found}, not {job[what]} as stated")
    return stats


def main() -> int:
    try:
        stats = _unpack(json.loads(sys.argv[1]))
    except BrokenPipeError:
        return 1
    except (BrokenLayerError, LayerEntryError, LayerLimitError, MemoryError) as exc:
        _say(json.dumps({"error": str(exc) or _TOO_MUCH, "kind": "layer"}))
        return 1
    except OSError as exc:
        _say(json.dumps({"error": exc.strerror or str(exc), "kind": "host"}))
        return 1
    implied = [os.fsdecode(path) for path in stats.implied]
    _say(json.dumps({"stats": stats._asdict() | {"implied": implied}}))
    return 0


if __name__ == "__main__":
    os._exit(main())  # the thread that reads ahead may wait for bytes that never come
