"""Runs the few programs that this plugin needs, from e2fsprogs, and says clearly when they are not there."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import trio

from nanocloud.errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import Sequence

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Nothing of the server's environment: MKE2FS_* and E2FSCK_* variables would change what the programs do.
_ENVIRONMENT = {"PATH": _PATH, "LANG": "C"}
_TOOLS = ("mke2fs", "e2fsck")
_OLDEST = (1, 47)  # mke2fs learnt assume_storage_prezeroed here


async def run(argv: Sequence[str], *, pass_fds: Sequence[int] = ()) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end, with its output kept; any exit code is an answer. Cancellation kills it."""
    return await trio.run_process(
        list(argv), capture_stdout=True, capture_stderr=True, check=False, env=_ENVIRONMENT, pass_fds=tuple(pass_fds)
    )


async def require_tools() -> None:
    """Raises ProviderError where e2fsprogs is missing or too old."""
    hint = "apt-get install e2fsprogs, 1.47 or newer (Debian 12 has it)"
    for tool in _TOOLS:
        if shutil.which(tool, path=_PATH) is None:
            raise ProviderError(f"csi-loop needs {tool}, which is not in {_PATH}", hint=hint)
    said = (await run(["mke2fs", "-V"])).stderr.decode(errors="replace")
    found = re.search(r"mke2fs (\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < _OLDEST:
        raise ProviderError(f"csi-loop needs e2fsprogs 1.47 or newer; mke2fs -V says {said[:80]!r}", hint=hint)
