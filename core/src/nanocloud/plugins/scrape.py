"""The metrics of plugins at a scrape: each plugin's in a thread, with a deadline, rendered apart from the others'.

A thread cannot be ended. So a plugin whose hook does not end is not asked again: it costs one thread and no more, and
neither the answer of another plugin nor the node's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio
from prometheus_client import Metric

from nanocloud.observability.metrics import render
from nanocloud.plugins.guard import FaultError, guarded, overdue
from nanocloud.plugins.host import PATIENCE_SECONDS

if TYPE_CHECKING:
    from nanocloud.context import NodeContext
    from nanocloud.plugins.host import PluginHost

HOOK = "nanocloud_metrics"
log = structlog.get_logger("plugins")


class PluginMetrics:
    """Called at every scrape; the answer is Prometheus text."""

    def __init__(self, host: PluginHost, context: NodeContext, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._host, self._context, self._patience = host, context, patience_seconds
        # One thread a plugin, however many scrapes come in while it is stuck.
        self._limiters = {plugin: trio.CapacityLimiter(1) for plugin in host.owners(HOOK)}

    async def __call__(self) -> bytes:
        texts = []
        for plugin, limiter in list(self._limiters.items()):
            with trio.move_on_after(self._patience) as scope:
                texts.append(
                    await trio.to_thread.run_sync(self._render, plugin, abandon_on_cancel=True, limiter=limiter)
                )
            if scope.cancelled_caught and plugin in self._limiters:  # of several scrapes the first to see it
                del self._limiters[plugin]
                self._blame(plugin, overdue(self._patience))
        return b"".join(texts)

    def _render(self, plugin: str) -> bytes:
        families = [offer.value for offer in self._host.ask(plugin, HOOK, Metric, context=self._context)]
        try:
            return guarded(lambda: render(families), seconds=self._patience)
        except FaultError as fault:
            self._blame(plugin, f"gave what cannot be shown: rendering {fault}")
            return b""

    def _blame(self, plugin: str, fault: str) -> None:
        self._host.blame(plugin, f"{HOOK} {fault}")
        log.warning("a plugin's metrics are left out", plugin=plugin, reason=fault)
