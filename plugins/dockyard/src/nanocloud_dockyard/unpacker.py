"""Runs the unpacking child (``_unpack``) for one layer, from a file or from bytes as they arrive."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import attrs
import trio

from nanocloud.concurrency import first_error, gather
from nanocloud.errors import ImageError
from nanocloud_dockyard.store import LayerRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from nanocloud.providers.image import Digest
    from nanocloud_dockyard.limits import UnpackLimits
    from nanocloud_dockyard.media import Descriptor

_MAX_LINE_BYTES = 32 << 20  # the last line lists implied folders
_MAX_STDERR_BYTES = 64 << 10
CHILD = (sys.executable, "-I", "-m", "nanocloud_dockyard._unpack")
_PIPE_BYTES = 1 << 20
"""A busy machine lets a process wait for its turn: with the usual 64 KiB, each waits for the other's all the time."""


class LayerBytesError(ImageError):
    """The layer is not what the manifest says; another source may have the right bytes."""


@attrs.frozen(kw_only=True)
class UnpackJob:
    layer: Descriptor
    diff_id: Digest
    root_fd: int
    """An empty folder."""
    limits: UnpackLimits

    @property
    def argument(self) -> str:
        return json.dumps(
            {
                "root_fd": self.root_fd,
                "size_bytes": self.layer.size_bytes,
                "sha256": self.layer.digest.removeprefix("sha256:"),
                "diff_id": self.diff_id.removeprefix("sha256:"),
                "limits": self.limits._asdict(),
            }
        )


async def unpack(job: UnpackJob, content: int | AsyncIterator[bytes], progress: Callable[[int], None]) -> LayerRecord:
    """Unpack ``content`` (a descriptor of a file, or bytes) into ``job.root_fd``. Cancellation kills the child.

    Raises:
        LayerBytesError: wrong digest, size or diff_id, or an entry that breaks a rule; names layer and entry.
        ImageError: the host refused, or the child died.
        what ``content`` raises.
    """
    process = await trio.lowlevel.open_process(
        [*CHILD, job.argument],
        stdin=content if isinstance(content, int) else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=(job.root_fd,),
        env={},
    )
    if process.stdin is not None:
        with suppress(OSError):  # more than this user may have
            fcntl.fcntl(process.stdin.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)  # type: ignore[attr-defined]
    try:
        answer, trace = await _converse(process, content, progress)
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            with trio.CancelScope(shield=True):  # the kernel ends it at once; the folder must be ours again
                await process.wait()
    return _record(job, answer, trace, process.returncode)


async def _converse(
    process: trio.Process, content: int | AsyncIterator[bytes], progress: Callable[[int], None]
) -> tuple[Any, bytes]:
    """Feed the child until it has answered or died; a source that stalls must not hide either."""
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_feed, process, content)
            answer, trace = await gather(lambda: _answer(process, progress), lambda: _trace(process))
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise first_error(group) from None
    return answer, trace


async def _feed(process: trio.Process, content: int | AsyncIterator[bytes]) -> None:
    if isinstance(content, int) or process.stdin is None:
        return
    async with process.stdin:
        async for chunk in content:
            try:
                await process.stdin.send_all(chunk)
            except trio.BrokenResourceError:
                return  # it refused the layer; its answer says why


async def _answer(process: trio.Process, progress: Callable[[int], None]) -> Any:
    """The last line, decoded; the lines before it are progress."""
    assert process.stdout is not None
    rest = b""
    async for chunk in process.stdout:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if not line.isdigit():
                return json.loads(line)
            progress(int(line))
        if len(rest) > _MAX_LINE_BYTES:
            raise ImageError(f"the unpacking child answers more than {_MAX_LINE_BYTES} bytes")
    return None


async def _trace(process: trio.Process) -> bytes:
    assert process.stderr is not None
    kept = b""
    async for chunk in process.stderr:
        kept = (kept + chunk)[-_MAX_STDERR_BYTES:]
    return kept


def _record(job: UnpackJob, answer: Any, trace: bytes, status: int | None) -> LayerRecord:
    if answer and "stats" in answer and status == 0:
        stats = answer["stats"]
        return LayerRecord(**{**stats, "implied": tuple(stats["implied"])})
    if answer and answer.get("kind") == "layer":
        raise LayerBytesError(f"layer {job.layer.digest}: {answer['error']}")
    if answer and "error" in answer:
        raise ImageError(f"layer {job.layer.digest} cannot be unpacked: {answer['error']}")
    last = trace.decode(errors="replace").strip().rpartition("\n")[2]
    raise ImageError(f"layer {job.layer.digest}: the unpacking child ended with status {status}: {last}")
