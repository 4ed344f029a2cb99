"""What goes wrong with a service: how the bundle tells it, and how it heals."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from nanocloud.errors import CommandError, ImageError, ProviderError
from nanocloud.models.bundle import BUNDLE
from nanocloud.models.core import EVENT, SECRET
from nanocloud.models.meta import condition_is_true
from nanocloud.models.pod import POD
from nanocloud.testkit import FakeProgram, FakeVolume
from nanocloud.testkit.planning import MARIADB, MARIADB_EXPORTS, WORDPRESS

if TYPE_CHECKING:
    from trio.testing import MockClock

    from nanocloud.providers.runtime import ContainerId, ContainerSpec
    from nanocloud.testkit import FakeExec
    from nanocloud.testkit.simulation import Server, Simulation

pytestmark = pytest.mark.usefixtures("no_surprises")


async def pod_container(server: Server, bundle: str) -> ContainerId:
    text: str = (await server.container(bundle))["containerID"]
    return text.removeprefix("nanocloud://")  # type: ignore[return-value]


# ---- what cannot be planned ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"databse_name": "x"}, "databse_name"),
        ({"database": "postgres"}, "mariadb"),
        ({"port_1": "99999->80"}, "port_1"),
    ],
)
async def test_options_that_cannot_be_are_told_by_name_and_nothing_is_made(
    machine: Simulation, mock_clock: MockClock, options: dict[str, str], told: str
) -> None:
    async with machine.run() as server:
        await server.install("wordpress", **options)
        assert told in await server.failure("wordpress", "OptionsInvalid")
        assert "OptionsInvalid" in await server.reasons("wordpress")
        await server.pass_time(300)
        assert machine.runtime.containers == {}
        assert machine.volume._volumes == {}


async def test_a_corrected_option_heals_the_bundle(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        await server.install("wordpress", port_1="none")
        await server.reason("wordpress", "OptionsInvalid")
        await server.change("wordpress", options={"port_1": "8080->80"})
        await server.ready("wordpress")
        status = await server.status("wordpress")
        assert "reason" not in status
        assert "message" not in status


async def test_a_label_that_does_not_parse(machine: Simulation, mock_clock: MockClock) -> None:
    machine.add_image("broken", {"port_1": "not a list"})
    async with machine.run() as server:
        await server.install("broken")
        assert "port_1" in await server.failure("broken", "LabelInvalid")


async def test_an_image_that_is_missing_is_found_once_it_is_there(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        await server.install("mariabd")
        assert "did you mean mariadb?" in await server.failure("mariabd", "ImageNotFound")
        machine.add_image("mariabd", MARIADB)
        await server.ready("mariabd")


async def test_a_macro_that_has_no_value_yet_says_so_and_is_asked_again(
    machine: Simulation, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses: list[str] = []

    def address() -> str:
        if not addresses:
            raise ProviderError("!local_ip: this node has no address but loopback", hint="Connect it to a network.")
        return addresses[0]

    monkeypatch.setattr("nanocloud.macros.first_address", address)
    machine.add_image("mariadb", {**MARIADB, "where": ["!local_ip"]})
    async with machine.run() as server:
        await server.install("mariadb")
        assert "no address but loopback (Connect it" in await server.failure("mariadb", "MacroFailed")
        addresses.append("192.0.2.7")
        await server.ready("mariadb")
        assert (await server.status("mariadb"))["options"]["where"] == "192.0.2.7"


async def test_nothing_is_installed_for_a_service_that_is_missing_a_part(
    machine: Simulation, mock_clock: MockClock
) -> None:
    machine.add_image("wordpress", {"database=&mysql": ["*database_host"]})
    async with machine.run() as server:
        await server.install("wordpress")
        assert "image mysql is not known" in await server.failure("wordpress", "ImageNotFound")
        assert await server.names(BUNDLE) == ["wordpress"]
        machine.add_image("mysql", MARIADB, exports=MARIADB_EXPORTS)
        await server.ready("wordpress")


async def test_a_selected_service_that_fails_tells_its_dependant_why(
    machine: Simulation, mock_clock: MockClock
) -> None:
    machine.images.calls.fail("ensure", ImageError("layer sha256:12 has another digest"), times=3)
    async with machine.run() as server:
        await server.install("wordpress")
        text = await server.failure("wordpress", "ServiceFailed")
        assert text == "service mariadb failed: layer sha256:12 has another digest"
        await server.ready("wordpress")


async def test_a_selected_service_that_cannot_be_planned_tells_its_dependant_why(
    machine: Simulation, mock_clock: MockClock
) -> None:
    async with machine.run() as server:
        await server.install("mariadb", port_1="none")
        await server.install("wordpress")
        text = await server.failure("wordpress", "ServiceFailed")
        assert text.startswith("service mariadb failed: ")
        await server.change("mariadb", options={"port_1": "3306"})
        await server.ready("wordpress")


async def test_a_dependency_that_is_not_to_be_installed(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        bundle = {"metadata": {"name": "wordpress", "namespace": "default"}}
        await server.store.create(BUNDLE, {**bundle, "spec": {"service": "wordpress", "deps": False}})
        assert "'mariadb' is not installed" in await server.failure("wordpress", "OptionsInvalid")
        await server.install("mariadb")
        await server.ready("wordpress")


async def test_services_that_select_each_other_are_refused(machine: Simulation, mock_clock: MockClock) -> None:
    exports = {"options": ["host"], "bindings": []}
    machine.add_image("egg", {"bird=&hen": ["*bird_host"]}, exports=exports)
    machine.add_image("hen", {"source=&egg": ["*source_host"]}, exports=exports)
    async with machine.run() as server:
        await server.install("egg")
        assert "egg -> hen -> egg" in await server.failure("egg", "OptionsInvalid")
        assert await server.names(BUNDLE) == ["egg"]
        await server.install("hen")
        assert "egg -> hen -> egg" in await server.failure("hen", "ServiceFailed")


async def test_a_binding_that_the_target_does_not_export_is_refused(machine: Simulation, mock_clock: MockClock) -> None:
    machine.add_image("wordpress", {**WORDPRESS, "database=&mariadb": ["*database_host", "&drop_everything"]})
    async with machine.run() as server:
        await server.install("wordpress")
        assert "does not export this binding" in await server.failure("wordpress", "OptionsInvalid")
        assert machine.fake_binding.runs == []


# ---- what a pod needs ------------------------------------------------------------------------------------------------


async def test_a_port_in_use_is_told_with_its_holder_and_taken_when_it_is_free(
    machine: Simulation, mock_clock: MockClock
) -> None:
    machine.network.host_programs[8080, "tcp"] = "apache2"
    async with machine.run() as server:
        await server.install("wordpress")
        assert "host port 8080/tcp, which the host's program apache2 holds" in await server.failure(
            "wordpress", "PortInUse"
        )
        del machine.network.host_programs[8080, "tcp"]
        await server.ready("wordpress")


async def test_no_room_for_a_volume(machine: Simulation, mock_clock: MockClock) -> None:
    machine.providers.volume = FakeVolume(machine.folder / "volumes", capacity_bytes=2**30)
    async with machine.run() as server:
        await server.install("mariadb")
        assert "free" in await server.failure("mariadb", "VolumeFull")
        await server.uninstall("mariadb")
        await server.gone("mariadb")
        assert machine.network._attached == {}


async def test_an_image_that_cannot_be_fetched(machine: Simulation, mock_clock: MockClock) -> None:
    machine.images.calls.fail("ensure", ImageError("layer sha256:12 has another digest"), times=3)
    async with machine.run() as server:
        await server.install("mariadb")
        assert await server.failure("mariadb", "ErrImagePull") == "layer sha256:12 has another digest"
        await server.ready("mariadb")


async def test_an_image_without_a_program_says_so(machine: Simulation, mock_clock: MockClock) -> None:
    machine.images.add("empty")
    async with machine.run() as server:
        await server.install("empty")
        assert "names no program to run" in await server.failure("empty", "CreateContainerError")


async def test_a_program_that_does_not_exist(machine: Simulation, mock_clock: MockClock) -> None:
    machine.runtime.program = lambda _: FakeProgram(start_error=127)
    async with machine.run() as server:
        await server.install("mariadb")
        assert "cannot execute /usr/sbin/mariadb" in await server.failure("mariadb", "CreateContainerError")
        await server.pass_time(300)
        assert len(machine.runtime.containers) <= 1
        assert (await server.container("mariadb"))["restartCount"] == 0
        machine.runtime.program = lambda _: FakeProgram()
        await server.ready("mariadb")


@pytest.mark.parametrize(
    ("fake", "method"),
    [
        ("network", "attach"),
        ("images", "ensure"),
        ("volume", "create"),
        ("volume", "publish"),
        ("runtime", "create"),
        ("runtime", "start"),
        ("runtime", "list"),
        ("runtime", "remove"),
        ("network", "set_names"),
    ],
)
async def test_a_provider_that_fails_for_a_while_is_asked_again(
    machine: Simulation, mock_clock: MockClock, fake: str, method: str
) -> None:
    async with machine.run() as server:
        await server.install("mariadb")
        await server.ready("mariadb")
        await server.settle()
        getattr(machine, fake).calls.fail(method, CommandError(["tool"], 1, "no luck"), times=4)
        await server.install("wordpress")
        await server.ready("wordpress")
        await server.change("wordpress", start=False)
        await server.reason("wordpress", "Stopped")
        assert "mariadb.default.svc" in machine.network.names
        assert len(machine.runtime.running) == 1


@pytest.mark.parametrize(
    ("fake", "method"),
    [
        ("runtime", "stop"),
        ("runtime", "remove"),
        ("network", "detach"),
        ("network", "release"),
        ("volume", "unpublish"),
        ("volume", "delete"),
        ("volume", "list"),
    ],
)
async def test_a_provider_that_fails_while_a_service_goes_is_asked_again(
    machine: Simulation, mock_clock: MockClock, fake: str, method: str
) -> None:
    async with machine.run() as server:
        await server.install("wordpress")
        await server.ready("wordpress")
        getattr(machine, fake).calls.fail(method, ProviderError("no luck"), times=4)
        await server.uninstall("wordpress")
        await server.gone("wordpress", "mariadb")
        assert machine.runtime.containers == {}
        assert machine.network._attached == {}
        assert machine.network._reserved == {}
        assert machine.volume._volumes == {}


# ---- containers that end ---------------------------------------------------------------------------------------------


async def test_a_container_that_is_killed_starts_again_at_once(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        await server.install("mariadb")
        await server.ready("mariadb")
        first = await pod_container(server, "mariadb")
        began = mock_clock.current_time()
        machine.runtime.exit(first, 137, out_of_memory=True)

        async def back() -> bool:
            status = await server.container("mariadb")
            return bool(status["ready"]) and status["restartCount"] == 1

        await server.until(back)
        assert mock_clock.current_time() - began < 1
        status = await server.container("mariadb")
        assert status["containerID"] != f"nanocloud://{first}"
        ended = status["lastState"]["terminated"]
        assert (ended["exitCode"], ended["reason"]) == (137, "OOMKilled")
        assert list(machine.runtime.containers) == [await pod_container(server, "mariadb")]
        await server.ready("mariadb")


async def test_a_container_that_does_not_stay_up_fails_the_bundle_and_is_restarted_ever_slower(
    machine: Simulation, mock_clock: MockClock
) -> None:
    starts: list[float] = []

    def program(_: ContainerSpec) -> FakeProgram:
        starts.append(mock_clock.current_time())
        return FakeProgram(exit_after_seconds=0.01, exit_code=3)

    machine.runtime.program = program
    async with machine.run() as server:
        await server.install("mariadb")
        text = await server.failure("mariadb", "CrashLoopBackOff")
        assert "container mariadb ended with 3 (Error)" in text
        await server.pass_time(1800)
        pauses = [later - earlier for earlier, later in itertools.pairwise(starts)]
        assert pauses == sorted(pauses)
        assert pauses[-1] == pytest.approx(60, abs=1)
        waiting = (await server.container("mariadb"))["state"]["waiting"]
        assert waiting["reason"] == "CrashLoopBackOff"
        logs = sorted((machine.folder / "logs" / "pods").rglob("*.log"))
        assert len(logs) <= 2
        machine.runtime.program = lambda _: FakeProgram()
        await server.ready("mariadb")


async def test_a_service_is_ready_only_while_its_script_says_so(machine: Simulation, mock_clock: MockClock) -> None:
    healthy = False

    async def probe(session: FakeExec) -> int:
        await session.stdout.send_all(b"cannot connect\n")
        return 0 if healthy else 2

    machine.runtime.exec_handler = probe
    async with machine.run() as server:
        await server.install("mariadb")
        await server.pass_time(120)
        status = await server.status("mariadb")
        assert (status["phase"], status["reason"]) == ("Installing", "PodNotReady")
        told = [event for event in (await server.store.list(EVENT)).items if event["reason"] == "Unhealthy"]
        assert told[0]["message"] == "Readiness probe failed: /usr/lib/nanocloud/ready.sh ended with 2: cannot connect"
        healthy = True
        await server.ready("mariadb")
        healthy = False
        await server.reason("mariadb", "PodNotReady")
        assert (await server.container("mariadb"))["restartCount"] == 0
        healthy = True
        await server.ready("mariadb")


async def test_one_slow_answer_does_not_take_a_service_out(machine: Simulation, mock_clock: MockClock) -> None:
    answers: list[int] = []

    async def probe(_: FakeExec) -> int:
        return answers.pop(0) if answers else 0

    machine.runtime.exec_handler = probe
    async with machine.run() as server:
        await server.install("mariadb")
        await server.ready("mariadb")
        answers += [1, 1]
        await server.pass_time(60)
        assert answers == []
        assert "Unhealthy" not in await server.reasons("mariadb-0")


async def test_an_image_without_a_script_is_ready_when_it_runs(machine: Simulation, mock_clock: MockClock) -> None:
    machine.add_image("mariadb", MARIADB, ready_script=False)
    async with machine.run() as server:
        await server.install("mariadb")
        await server.ready("mariadb")
        assert machine.runtime.calls.of("exec") == []


async def test_a_script_that_cannot_find_a_program_is_not_ready(machine: Simulation, mock_clock: MockClock) -> None:
    async def no_such_program(_: FakeExec) -> int:
        return 127

    machine.runtime.exec_handler = no_such_program
    async with machine.run() as server:
        await server.install("mariadb")
        await server.pass_time(60)
        bundle = await server.bundle("mariadb")
        assert bundle is not None
        assert not condition_is_true(bundle, "Ready")


async def test_a_seccomp_profile_of_the_nodes_own_is_refused_by_field(
    machine: Simulation, mock_clock: MockClock
) -> None:
    security = {"seccompProfile": "Localhost", "localhostProfile": "mine.json"}
    async with machine.run() as server:
        await server.install("mariadb")
        await server.ready("mariadb")
        await server.change("mariadb", security=security)
        assert "allowed: Baseline, RuntimeDefault" in await server.failure("mariadb", "OptionsInvalid")


async def test_a_container_that_vanishes_is_made_again(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        await server.install("mariadb")
        await server.ready("mariadb")
        first = await pod_container(server, "mariadb")
        await machine.runtime.remove(first)

        async def back() -> bool:
            status = await server.container("mariadb")
            return bool(status["ready"]) and status["containerID"] != f"nanocloud://{first}"

        await server.until(back)


async def test_a_pod_that_a_user_deletes_comes_back(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        await server.install("wordpress")
        await server.ready("wordpress")
        for grace in (None, 0):
            before = await pod_container(server, "wordpress")
            await server.store.delete(POD, "default", "wordpress-0", grace_seconds=grace)

            async def back(before: str = before) -> bool:
                pod = await server.pod("wordpress")
                status = await server.container("wordpress") if pod else {}
                return bool(status.get("ready")) and status["containerID"] != f"nanocloud://{before}"

            await server.until(back)
            await server.settle()
            assert len(machine.runtime.containers) == 2
            assert len(machine.network._attached) == 2
        await server.ready("wordpress")


async def test_a_secret_that_a_user_deletes_is_made_again_when_it_is_needed(
    machine: Simulation, mock_clock: MockClock
) -> None:
    async with machine.run() as server:
        await server.install("mariadb")
        await server.ready("mariadb")
        password = next(iter(machine.runtime.containers.values())).spec.environment["MARIADB_ROOT_PASSWORD"]
        await server.store.delete(SECRET, "default", "mariadb-options")
        before = await pod_container(server, "mariadb")
        await server.restart("mariadb", "1")

        async def back() -> bool:
            status = await server.container("mariadb")
            return bool(status.get("ready")) and status["containerID"] != f"nanocloud://{before}"

        await server.until(back)
        (container,) = machine.runtime.containers.values()
        assert container.spec.environment["MARIADB_ROOT_PASSWORD"] == password
