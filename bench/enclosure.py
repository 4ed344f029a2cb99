"""An enclosure: namespaces of its own, in which a peer runs as on a machine of its own, and leaves nothing.

It has its own mounts, process numbers, System V objects and, unless told otherwise, its own network; ``/run`` and
``/dev/shm`` are empty there. When it ends, the kernel ends every process of it, and with them go mounts, links,
addresses and firewall rules. Folders on disk are the same inside and outside, so Unix sockets can be reached from
outside. Control groups are the one thing that stays; those that ``cgroups``
names are removed.

On a hybrid machine the second version's hierarchy is hidden there: crun refuses such machines.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE

_CGROUPS = Path("/sys/fs/cgroup")
# A shell as the first process: while it waits it also reaps what others leave behind.
_FIRST = """
set -e
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs tmpfs /dev/shm
if [ -d /sys/fs/cgroup/unified ]; then mount -t tmpfs tmpfs /sys/fs/cgroup/unified; fi
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
sleep infinity & echo ready; exec >/dev/null
while :; do wait || :; done
"""


class Enclosure:
    def __init__(self, pid: int) -> None:
        self.pid = pid
        """The host's number of its first process."""

    @property
    def network(self) -> Path:
        """Its network namespace."""
        return Path(f"/proc/{self.pid}/ns/net")

    def command(self, *words: str) -> list[str]:
        """The command as it has to be started from outside, so that it runs inside. Costs a millisecond."""
        return ["nsenter", f"--target={self.pid}", "--mount", "--net", "--ipc", "--pid", "--", *words]

    def pids(self) -> list[int]:
        """The host's numbers of all processes inside."""
        mine = _target(Path(f"/proc/{self.pid}/ns/pid"))
        return [int(path.parts[2]) for path in Path("/proc").glob("[0-9]*/ns/pid") if _target(path) == mine]


@contextmanager
def enclosure(*, network: bool = True, cgroups: Sequence[str] = ()) -> Iterator[Enclosure]:
    """Until the end of the block. ``cgroups`` are the names of the control groups that its peer makes."""
    options = ["--mount", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc", *(["--net"] if network else [])]
    # Also when this process is killed nothing stays: the kernel then kills unshare, and unshare the first process.
    command = ["setpriv", "--pdeathsig=KILL", "unshare", *options, "--", "sh", "-c", _FIRST]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=PIPE, stderr=PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"no namespaces for a peer: {process.stderr.read()}")
        first = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
        try:
            yield Enclosure(first)
        finally:
            os.kill(first, signal.SIGKILL)  # all others go with it; the kernel lets it end last
            process.wait()
            for name in cgroups:
                _remove_cgroups(name)


def _remove_cgroups(name: str) -> None:
    for folder in _CGROUPS.glob(f"*/{name}"):
        for inner, _, _ in os.walk(folder, topdown=False):
            with contextlib.suppress(OSError):  # in use: somebody else's, of the same name
                Path(inner).rmdir()


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""  # ended since
