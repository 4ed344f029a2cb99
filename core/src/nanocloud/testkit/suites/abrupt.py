"""Abrupt ends: a provider at work in a process that is killed, so that a suite can look at what is left.

The process is a fork of the test's own, for it needs what the fixtures built. It works in a thread with a trio run of
its own; the fork's copy of the test's run never goes on.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
import traceback
import warnings
from typing import TYPE_CHECKING, TypeVar

import trio

from nanocloud.providers.base import Provider

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

P = TypeVar("P", bound=Provider)

LIMIT_SECONDS = 60
"""More than the work of any suite takes; a provider that hangs fails instead of hanging the run."""

_FAILED = "failed "


async def killed(
    make_provider: Callable[[], P], work: Callable[[P, Callable[[str], None]], Awaitable[None]], *, after: int = 0
) -> list[str]:
    """Open a provider in another process, do ``work``, kill the process by SIGKILL.

    ``work`` gets the provider and a way to tell lines. Returns all the lines that it told. The process is killed once
    it told ``after`` lines; 0: when the work is done, before the provider is closed.
    """
    reader, writer = os.pipe()
    gone, lifeline = os.pipe()
    with warnings.catch_warnings():
        # Python warns of forks beside threads, for what they hold locked stays so: the fork uses nothing of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os.close(lifeline)
        threading.Thread(target=_be_killed, args=(make_provider, work, writer), daemon=True).start()
        os.read(gone, 1)  # returns only if the tests themselves are killed
        os._exit(0)
    os.close(writer)
    os.close(gone)
    await trio.lowlevel.checkpoint()
    try:
        # Read without trio, whose clock may be virtual: the process takes real time.
        deadline = time.monotonic() + LIMIT_SECONDS
        told = _read(reader, after, deadline)
        os.kill(pid, signal.SIGKILL)
        told += _read(reader, 0, deadline)  # what was on its way
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)  # noqa: ASYNC222 - it is dead already
        os.close(lifeline)
        os.close(reader)
    lines = [line for line in told.decode().splitlines() if line]
    if lines and lines[-1].startswith(_FAILED):
        raise AssertionError(lines[-1].removeprefix(_FAILED).encode().decode("unicode_escape"))
    return lines


async def left(
    make_provider: Callable[[], P],
    work: Callable[[P, Callable[[str], None]], Awaitable[None]],
    *,
    after: int = 0,
    crash: Callable[[P], None],
) -> list[str]:
    """As ``killed``, for a provider in memory, which would go with its process: ``crash`` says what it loses.

    Then whatever waits is cancelled, the closing of the provider too. What the dead provider raises is nobody's.
    """
    lines: list[str] = []
    scope = trio.CancelScope()
    try:
        with scope:
            async with make_provider() as provider:

                def tell(line: str) -> None:
                    lines.append(line)
                    if len(lines) == after:
                        end()

                def end() -> None:
                    crash(provider)
                    scope.cancel()

                await work(provider, tell)
                end()
    except Exception:
        if not scope.cancel_called:
            raise
    return lines


def _be_killed(
    make_provider: Callable[[], P], work: Callable[[P, Callable[[str], None]], Awaitable[None]], writer: int
) -> None:
    def tell(line: str) -> None:
        os.write(writer, f"{line}\n".encode())

    async def run() -> None:
        async with make_provider() as provider:
            await work(provider, tell)
            tell("")
            await trio.sleep_forever()

    try:
        trio.run(run)
    except BaseException:
        tell(_FAILED + traceback.format_exc().encode("unicode_escape").decode())


def _read(reader: int, lines: int, deadline: float) -> bytes:
    """What is told up to so many lines; 0: to the end of the work, which is an empty line, or of the process."""
    told = b""
    while select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
        piece = os.read(reader, 65536)
        told += piece
        if not piece or told.count(b"\n") >= lines > 0 or told.endswith(b"\n\n") or told == b"\n":
            return told
        if told.startswith(_FAILED.encode()) or f"\n{_FAILED}".encode() in told:
            return told
    raise AssertionError(f"the provider's work was not done within {LIMIT_SECONDS} s")
