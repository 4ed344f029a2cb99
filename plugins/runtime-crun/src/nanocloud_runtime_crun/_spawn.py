"""Start a program without forking Python, and wait for it without polling.

``posix_spawn`` shares memory until the ``execve``, so it costs the same however big the server is, and the child has
the namespaces of the calling *thread*. Every descriptor of Python is close-on-exec: a child gets what is listed here.
"""

from __future__ import annotations

import fcntl
import os
import signal
from typing import TYPE_CHECKING

import attrs
import trio

from nanocloud_runtime_crun._posix_spawn import posix_spawn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "TZ": "UTC"}
"""What host programs get: nothing of the server's own environment."""

_ABOVE_STDIO = 64
# Python ignores these; what a child ignores it would pass on to the container's process.
_DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)


@attrs.define(eq=False)
class Child:
    """A process of ours that is not reaped yet."""

    pid: int
    pidfd: int
    _code: int | None = None
    _lock: trio.Lock = attrs.field(factory=trio.Lock)

    async def wait(self) -> int:
        """The exit code, 128 + signal after a signal; reaps the process. May be called again."""
        async with self._lock:
            if self._code is None:
                await trio.lowlevel.wait_readable(self.pidfd)
                _, status = os.waitpid(self.pid, 0)  # noqa: ASYNC222  # it has ended: this only reaps
                code = os.waitstatus_to_exitcode(status)
                self._code = code if code >= 0 else 128 - code
                os.close(self.pidfd)
        return self._code

    @property
    def ended(self) -> bool:
        return self._code is not None

    def send_signal(self, number: signal.Signals) -> None:
        """Nothing when it has been reaped."""
        if self._code is None:
            signal.pidfd_send_signal(self.pidfd, number)


def spawn(argv: Sequence[str], descriptors: Mapping[int, int], environment: Mapping[str, str] = ENVIRONMENT) -> Child:
    """Run ``argv[0]`` (an absolute path) with ``descriptors`` (child's number -> ours); 0, 1, 2 not named are null."""
    copies: list[int] = []
    actions: list[tuple[int, int]] = []
    null = os.open(os.devnull, os.O_RDWR)
    try:
        wanted = {0: null, 1: null, 2: null, **descriptors}
        for target, source in sorted(wanted.items()):
            # A copy far up: no source can be overwritten by an earlier dup2 of this very list.
            copies.append(fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, _ABOVE_STDIO))
            actions.append((copies[-1], target))
        pid = posix_spawn(argv, environment, actions, _DEFAULT_SIGNALS)
        return Child(pid, os.pidfd_open(pid))
    finally:
        for fd in (null, *copies):
            os.close(fd)
