"""Metrics and logs as others read them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
import structlog
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from nanocloud.keyspace import Keyspace
from nanocloud.observability import logs, metrics
from nanocloud.testkit.api import ApiClient


async def scrape(keyspace: Keyspace, plugins: Iterable[Metric] = ()) -> dict[str, Metric]:
    async def of_plugins() -> bytes:
        return metrics.render(plugins)

    app = Starlette(routes=[metrics.route(keyspace, of_plugins)])
    answer = await ApiClient(app).request("GET", "/metrics")
    assert answer.headers["content-type"] == metrics.CONTENT_TYPE
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


async def test_metrics_are_read_at_the_moment_of_the_scrape(keyspace: Keyspace) -> None:
    before = (await scrape(keyspace))["nanocloud_keyspace_revision"].samples[0].value
    await keyspace.put(("a",), b"1")
    after = (await scrape(keyspace))["nanocloud_keyspace_revision"].samples[0].value
    assert after == before + 1


async def test_metrics_of_core_process_and_plugins_are_in_one_answer(keyspace: Keyspace) -> None:
    metrics.binding_runs.labels("Completed").inc()
    families = await scrape(keyspace, [GaugeMetricFamily("acme_answers", "Answers.", value=42)])
    assert families["acme_answers"].samples[0].value == 42
    assert {"nanocloud_binding_executions", "nanocloud_reconcile_seconds", "process_open_fds"} <= families.keys()


@pytest.fixture
def _restored() -> Iterable[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("_restored")
def test_logs_for_machines_are_one_json_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json")
    log = structlog.get_logger("test")
    log.debug("too much")
    log.info("two\nlines", path=Path("/a"), count=1)
    try:
        raise ValueError("boom")
    except ValueError:
        log.exception("failed")
    out, err = capsys.readouterr()
    assert out == ""
    first, second = map(json.loads, err.splitlines())
    assert (first["event"], first["level"], first["path"], first["count"]) == ("two\nlines", "info", "/a", 1)
    assert first["timestamp"].endswith("Z")
    assert "ValueError: boom" in second["exception"]


@pytest.mark.usefixtures("_restored")
def test_logs_for_people_have_no_colour_outside_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text")
    structlog.get_logger("test").warning("disk is full", path="/a")
    err = capsys.readouterr().err
    assert "disk is full" in err
    assert "path=/a" in err
    assert "\x1b" not in err
