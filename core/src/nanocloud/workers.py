"""Long-running workers: one that crashes is logged and started again with back-off, and takes no other down."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NoReturn

import structlog
import trio

from nanocloud.concurrency import first_error

if TYPE_CHECKING:
    from nanocloud.extension import Controller

log = structlog.get_logger("workers")

_CRASHES = (Exception, SystemExit)  # a worker, which may be a plugin's, does not end the process
FIRST_SECONDS, LAST_SECONDS, GOOD_SECONDS = 0.5, 30.0, 300.0


async def keep_running(worker: Controller) -> NoReturn:
    """Run the worker for ever; only cancellation ends it."""
    await restart_forever(worker.name, worker.run)


async def restart_forever(name: str, run: Callable[[], Awaitable[object]]) -> NoReturn:
    delay = FIRST_SECONDS
    while True:
        began = trio.current_time()
        try:
            await run()
            log.error("worker returned", worker=name, restart_seconds=delay)
        except BaseExceptionGroup as group:
            error = first_error(group)
            if not isinstance(error, _CRASHES):
                raise  # cancellation, or the end of the process
            log.error("worker crashed", worker=name, restart_seconds=delay, exc_info=error)
        except _CRASHES as exc:  # the one place where a worker's crash becomes a restart
            log.error("worker crashed", worker=name, restart_seconds=delay, exc_info=exc)
        if trio.current_time() - began > GOOD_SECONDS:
            delay = FIRST_SECONDS
        await trio.sleep(delay)
        delay = min(delay * 2, LAST_SECONDS)
