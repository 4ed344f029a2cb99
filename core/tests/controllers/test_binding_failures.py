"""Bindings that fail, time out or are interrupted: how the bundle tells it, and how it heals."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from nanocloud.errors import ProviderError
from nanocloud.kubelet.bindings import MAX_ATTEMPTS
from nanocloud.models.binding import BINDING
from nanocloud.models.meta import condition
from nanocloud.testkit.planning import WORDPRESS

if TYPE_CHECKING:
    from trio.testing import MockClock

    from nanocloud.providers.binding import BindingCall
    from nanocloud.testkit.simulation import Simulation

pytestmark = pytest.mark.usefixtures("no_surprises")


async def test_a_binding_that_fails_twice_is_tried_again_until_it_succeeds(
    machine: Simulation, mock_clock: MockClock
) -> None:
    codes = [1, None, 0]
    machine.fake_binding.handler = lambda _: codes.pop(0)
    async with machine.run() as server:
        await server.install("wordpress")
        await server.ready("wordpress")
        (binding,) = (await server.status("wordpress"))["bindings"]
        assert (binding["phase"], binding["attempts"]) == ("Completed", 3)
        reasons = [reason for reason in await server.reasons("wordpress") if reason.startswith("Binding")]
        assert reasons == [
            "BindingStarted",
            "BindingFailed",
            "BindingStarted",
            "BindingTimeout",
            "BindingStarted",
            "BindingCompleted",
        ]
        profile = await server.profiles.get("default", "wordpress")
        assert profile is not None
        assert [record.attempts for record in profile.bindings.values()] == [3]


async def test_a_binding_that_never_succeeds_fails_the_bundle_and_records_nothing(
    machine: Simulation, mock_clock: MockClock
) -> None:
    moments: list[float] = []

    def fail(_: BindingCall) -> int:
        moments.append(mock_clock.current_time())
        return 3

    machine.fake_binding.handler = fail
    async with machine.run() as server:
        await server.install("wordpress")
        text = await server.failure("wordpress", "BindingFailed")
        assert text.startswith("create_user in mariadb ended with 3: ")
        bound = condition(await server.bundle("wordpress") or {}, "Bound")
        assert (bound or {})["status"] == "False"
        await server.pass_time(3600)
        assert len(machine.fake_binding.runs) == MAX_ATTEMPTS
        pauses = [later - earlier for earlier, later in itertools.pairwise(moments)]
        assert pauses == sorted(pauses)
        assert pauses[-1] > 5 * pauses[0]
        profile = await server.profiles.get("default", "wordpress")
        assert profile is not None
        assert profile.bindings == {}
        assert await server.pod("wordpress") is None
        # What the user can do about it.
        machine.fake_binding.handler = lambda _: 0
        await server.change("wordpress", forceBindings="again")
        await server.ready("wordpress")


async def test_a_clock_that_is_set_back_does_not_put_off_the_next_attempt(
    machine: Simulation, mock_clock: MockClock
) -> None:
    machine.fake_binding.handler = lambda _: int(len(machine.fake_binding.runs) == 1)
    async with machine.run() as server:
        await server.install("wordpress")
        await server.reason("wordpress", "BindingFailed")
    machine.clock_offset_seconds = -86_400.0
    async with machine.run() as server:
        await server.ready("wordpress")


async def test_a_failed_binding_lets_the_bundle_be_removed(machine: Simulation, mock_clock: MockClock) -> None:
    machine.fake_binding.handler = lambda _: 1
    async with machine.run() as server:
        await server.install("wordpress")
        await server.reason("wordpress", "BindingFailed")
        await server.uninstall("wordpress")
        await server.gone("wordpress", "mariadb")


async def test_bindings_of_one_target_run_in_order_and_stop_at_a_failure(
    machine: Simulation, mock_clock: MockClock
) -> None:
    machine.add_image("wordpress", {**WORDPRESS, "database=&mariadb": ["&create_user $database_name", "&require_tls"]})
    codes = {"create_user": [1, 0], "require_tls": [0]}
    machine.fake_binding.handler = lambda call: codes[call.command].pop(0)
    async with machine.run() as server:
        await server.install("wordpress")
        await server.ready("wordpress")
        assert [call.command for call in machine.fake_binding.runs] == ["create_user", "create_user", "require_tls"]


async def test_bindings_of_several_targets_run_side_by_side(machine: Simulation, mock_clock: MockClock) -> None:
    exports = {"options": ["host"], "bindings": ["allow"]}
    for name in ("cache", "queue"):
        machine.add_image(name, {}, exports=exports)
    machine.add_image("shop", {"cache=&cache": ["&allow"], "queue=&queue": ["&allow"]})
    machine.fake_binding.calls.delay("run", 30)
    async with machine.run() as server:
        await server.install("shop")
        began = mock_clock.current_time()
        await server.ready("shop")
        assert len(machine.fake_binding.runs) == 2
        assert mock_clock.current_time() - began < 40


async def test_how_an_old_binding_ends_says_nothing_about_the_one_made_anew(
    machine: Simulation, mock_clock: MockClock
) -> None:
    machine.fake_binding.calls.delay("run", 30)
    async with machine.run() as server:
        await server.install("wordpress")

        async def running() -> bool:
            return bool(machine.fake_binding.calls.log)

        await server.until(running)
        await server.change("wordpress", options={"database_name": "other"})
        await server.ready("wordpress")
        assert [call.arguments[0].value for call in machine.fake_binding.runs] == ["wordpress", "other"]
        profile = await server.profiles.get("default", "wordpress")
        assert profile is not None
        (record,) = profile.bindings.values()
        (binding,) = (await server.store.list(BINDING)).items
        assert binding["spec"]["arguments"][0] == {"value": "other"}
        assert record.attempts == 1


async def test_a_provider_that_cannot_run_commands_is_asked_again_ever_later(
    machine: Simulation, mock_clock: MockClock
) -> None:
    """Two bindings in one target fail: they must not wake each other over and over."""
    machine.add_image("wordpress", {key: value for key, value in WORDPRESS.items() if key != "port_1"})
    machine.fake_binding.calls.fail("run", ProviderError("no room for a process"), times=8)
    async with machine.run() as server:
        for name in ("blog", "shop"):
            await server.install("wordpress", name=name, database_name=name, database_user=name)
        await server.pass_time(10)
        assert len(machine.fake_binding.calls.log) <= 6
        status = await server.status("blog")
        assert (status["phase"], status["reason"]) == ("Installing", "BindingFailed")
        assert "no room for a process" in status["message"]
        await server.ready("blog", "shop")


async def test_a_target_that_stops_during_a_binding_is_bound_when_it_is_back(
    machine: Simulation, mock_clock: MockClock
) -> None:
    codes = [126, 0]
    machine.fake_binding.handler = lambda _: codes.pop(0)
    machine.fake_binding.calls.delay("run", 5)
    async with machine.run() as server:
        await server.install("wordpress")

        async def running() -> bool:
            return bool(machine.fake_binding.calls.log)

        await server.until(running)
        await server.change("mariadb", start=False)
        await server.reason("mariadb", "Stopped")
        await server.change("mariadb", start=True)
        await server.ready("wordpress")
