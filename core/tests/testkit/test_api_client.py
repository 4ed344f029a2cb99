"""What tests may rely on in the API client that needs no socket."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from starlette.responses import PlainTextResponse

from nanocloud.client.api import ApiError
from nanocloud.models.core import CONFIG_MAP, NAMESPACE
from nanocloud.models.meta import name_of
from nanocloud.testkit import FakeStorage
from nanocloud.testkit.api import GUEST, NOBODY, ApiClient, path_of, refusal
from nanocloud.testkit.objects import config_map, open_store


@pytest.fixture
async def api(autojump_clock: trio.testing.MockClock) -> AsyncIterator[ApiClient]:
    async with open_store(FakeStorage()) as store:
        yield ApiClient.over(store)


async def test_a_refused_call_raises_the_servers_status(api: ApiClient) -> None:
    for caller, code in ((GUEST, 403), (NOBODY, 401)):
        error = await refusal(api.acting_as(caller).create(CONFIG_MAP, config_map("a")))
        assert (error.code, error.cause["kind"], error.cause["code"]) == (code, "Status", code)
    with pytest.raises(ApiError, match="not found"):
        await api.get(CONFIG_MAP, "a")


async def test_an_answer_that_should_have_been_refused_is_shown(api: ApiClient) -> None:
    with pytest.raises(AssertionError, match=r"not refused: .*'name': 'a'"):
        await refusal(api.create(CONFIG_MAP, config_map("a")))


async def test_an_error_that_is_no_status_keeps_its_text() -> None:
    error = await refusal(ApiClient(PlainTextResponse("[-]runtime missing", 503)).request("GET", "/readyz"))
    assert (error.code, str(error)) == (503, "[-]runtime missing")


async def test_paths_follow_from_the_kind() -> None:
    assert path_of(CONFIG_MAP, "a", "status", namespace="shop") == "/api/v1/namespaces/shop/configmaps/a/status"
    assert path_of(CONFIG_MAP, namespace=None) == "/api/v1/configmaps"
    assert path_of(NAMESPACE, "shop") == "/api/v1/namespaces/shop"


async def test_a_failure_within_a_watch_is_raised_as_it_is(api: ApiClient) -> None:
    with pytest.raises(ZeroDivisionError):
        async with api.watch(CONFIG_MAP):
            raise ZeroDivisionError


async def test_a_watch_can_be_left_with_events_unread(api: ApiClient) -> None:
    with trio.fail_after(3600):
        async with api.watch(CONFIG_MAP) as events:
            for name in ("a", "b", "c"):
                await api.create(CONFIG_MAP, config_map(name))
            assert name_of((await anext(events)).object) == "a"
            await trio.testing.wait_all_tasks_blocked()


async def test_a_reader_that_gives_up_waiting_misses_nothing(api: ApiClient) -> None:
    async with api.watch(CONFIG_MAP) as events:
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(events)
        assert scope.cancelled_caught
        for name in ("a", "b"):
            await api.create(CONFIG_MAP, config_map(name))
        assert [name_of((await anext(events)).object) for _ in range(2)] == ["a", "b"]
