"""``/metrics``: Prometheus families of the node and of its plugins, in the text format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import trio
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from prometheus_client import Metric
    from starlette.requests import Request

    from nanocloud.keyspace import Keyspace

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

reconcile_seconds = Histogram(
    "nanocloud_reconcile_seconds",
    "Time of one reconcile, by queue.",
    ["queue"],
    registry=None,
    buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60),
)
binding_runs = Counter("nanocloud_binding_executions", "Binding commands run, by result.", ["result"], registry=None)


class _Node(Collector):
    """What is read at the moment of the scrape."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("nanocloud_keyspace_revision", "Last revision.", value=self._keyspace.revision)
        yield GaugeMetricFamily("nanocloud_keyspace_compacted", "Compacted up to.", value=self._keyspace.compacted)
        yield from reconcile_seconds.collect()
        yield from binding_runs.collect()


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def render(families: Iterable[Metric]) -> bytes:
    """Metric families in the text format."""
    registry = CollectorRegistry()
    registry.register(_Families(families))
    return generate_latest(registry)


def route(keyspace: Keyspace, plugins: Callable[[], Awaitable[bytes]]) -> Route:
    """The route; rendering happens in a worker thread. ``plugins`` gives the text of what plugins measure."""
    registry = CollectorRegistry()
    registry.register(_Node(keyspace))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)

    async def metrics(request: Request) -> Response:
        text = await trio.to_thread.run_sync(partial(generate_latest, registry))
        return Response(text + await plugins(), media_type=CONTENT_TYPE)

    return Route("/metrics", metrics, methods=["GET"])
