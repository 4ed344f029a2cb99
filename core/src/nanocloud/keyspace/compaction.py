"""The policy of forgetting: keep the last N revisions for watchers and paging lists that are behind.

Compaction runs when a tenth of N has gathered on top, so that its cost is spread over many writes; between two of them
the worker waits for a revision, not for a time.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from nanocloud.errors import NanocloudError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nanocloud.providers.storage import StorageProvider

log = logging.getLogger(__name__)

_RETRY_SECONDS = 30.0


async def keep_revisions(
    storage: StorageProvider, compact: Callable[[int], Awaitable[None]], *, revisions: int
) -> None:
    """Worker: call ``compact`` so that never many more than ``revisions`` are kept."""
    while True:
        try:
            info = await storage.info()
            newest = await storage.wait_beyond(info.compacted + revisions + revisions // 10)
            await compact(newest - revisions)
        except NanocloudError as exc:
            log.warning("compaction failed, next try in %s s: %s", _RETRY_SECONDS, exc)
            await trio.sleep(_RETRY_SECONDS)
