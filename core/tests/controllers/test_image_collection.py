"""Images that nothing uses are removed a while later; what a plan holds, and what others use, never is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structlog.testing import capture_logs

from nanocloud.errors import ImageError
from nanocloud.models.pod import POD
from nanocloud.testkit.planning import WORDPRESS
from nanocloud.testkit.simulation import KEEP_IMAGES_SECONDS

if TYPE_CHECKING:
    from trio.testing import MockClock

    from nanocloud.providers.image import Digest
    from nanocloud.testkit.simulation import Server, Simulation


async def digest_of(server: Server, bundle: str) -> Digest:
    profile = await server.profiles.get("default", bundle)
    assert profile is not None
    return profile.image


def collections(machine: Simulation) -> int:
    return [method for method, _ in machine.images.calls.log].count("collect")


async def test_the_image_of_an_uninstalled_service_goes_after_a_while(
    machine: Simulation, mock_clock: MockClock
) -> None:
    async with machine.run() as server:
        await server.install("mariadb")
        await server.ready("mariadb")
        image = await digest_of(server, "mariadb")
        await server.pass_time(3 * KEEP_IMAGES_SECONDS)
        assert image in machine.images.here
        await server.uninstall("mariadb")
        await server.gone("mariadb")
        await server.pass_time(KEEP_IMAGES_SECONDS * 0.9)
        assert image in machine.images.here
        await server.pass_time(KEEP_IMAGES_SECONDS * 0.2)
        assert machine.images.here == set()


async def test_an_image_that_another_service_uses_stays(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        await server.install("mariadb")
        await server.install("mariadb", name="second")
        await server.ready("mariadb", "second")
        await server.uninstall("second")
        await server.gone("second")
        await server.pass_time(2 * KEEP_IMAGES_SECONDS)
        assert machine.images.here == {await digest_of(server, "mariadb")}


async def test_a_service_that_is_stopped_keeps_its_image(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        await server.install("mariadb")
        await server.ready("mariadb")
        await server.change("mariadb", start=False)
        await server.reason("mariadb", "Stopped")
        await server.pass_time(2 * KEEP_IMAGES_SECONDS)
        assert await digest_of(server, "mariadb") in machine.images.here


async def test_the_image_before_an_update_goes(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        await server.install("wordpress", name="app", database="mariadb")
        await server.ready("app", "mariadb")
        before = await digest_of(server, "app")
        machine.add_image("registry.example/wordpress", WORDPRESS)
        await server.change("app", image="registry.example/wordpress")
        await server.ready("app")
        after = await digest_of(server, "app")
        assert before != after
        await server.pass_time(2 * KEEP_IMAGES_SECONDS)
        assert machine.images.here == {after, await digest_of(server, "mariadb")}


async def test_an_image_that_a_plan_just_resolved_stays(machine: Simulation, mock_clock: MockClock) -> None:
    """Between resolving and storing the profile nothing names it; a collection may come just then."""
    async with machine.run() as server:
        await server.install("mariadb")
        await server.ready("mariadb")
        await server.uninstall("mariadb")
        await server.gone("mariadb")
        await server.pass_time(KEEP_IMAGES_SECONDS - 30)
        wordpress = await machine.images.ensure(await machine.images.resolve("wordpress"))
        before = collections(machine)
        await server.pass_time(60)
        assert collections(machine) == before + 1
        assert machine.images.here == {wordpress.image.digest}


async def test_a_collection_that_failed_is_repeated(machine: Simulation, mock_clock: MockClock) -> None:
    with capture_logs() as logs:
        async with machine.run() as server:
            await server.install("mariadb")
            await server.ready("mariadb")
            await server.uninstall("mariadb")
            await server.gone("mariadb")
            machine.images.calls.fail("collect", ImageError("the disk does not answer"))
            await server.pass_time(1.5 * KEEP_IMAGES_SECONDS)
            assert machine.images.here != set()
            await server.pass_time(KEEP_IMAGES_SECONDS)
            assert machine.images.here == set()
    assert [entry["error"] for entry in logs if entry["event"] == "unused images are left"] == [
        "the disk does not answer"
    ]


async def test_what_a_former_life_left_is_collected_and_an_idle_node_never_looks_again(
    machine: Simulation, mock_clock: MockClock
) -> None:
    await machine.images.ensure(machine.add_image("left", {}))
    async with machine.run() as server:
        await server.install("mariadb")
        await server.ready("mariadb")
        await server.pass_time(3 * KEEP_IMAGES_SECONDS)
        assert machine.images.here == {await digest_of(server, "mariadb")}
        looked = collections(machine)
        await server.pass_time(100 * KEEP_IMAGES_SECONDS)
        assert collections(machine) == looked


async def test_a_container_keeps_its_image_whatever_names_it(machine: Simulation, mock_clock: MockClock) -> None:
    """A pod of a user's own, with a tag: only its container knows which image that was."""
    async with machine.run() as server:
        image = machine.add_image("registry.example/tool:1", {})
        pod = {
            "metadata": {"name": "tool", "namespace": "default"},
            "spec": {"containers": [{"name": "tool", "image": "registry.example/tool:1"}]},
        }
        await server.store.create(POD, pod)
        await server.until(lambda: _runs(machine), "its container runs")
        machine.add_image("registry.example/tool:1", {})  # the tag moved
        await server.install("mariadb")
        await server.ready("mariadb")
        await server.uninstall("mariadb")
        await server.gone("mariadb")
        await server.pass_time(2 * KEEP_IMAGES_SECONDS)
        assert machine.images.here == {image.digest}


async def _runs(machine: Simulation) -> bool:
    return bool(machine.runtime.containers)
