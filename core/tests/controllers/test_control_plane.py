"""The whole control plane on fakes: what a user asks for, and what comes of it."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from nanocloud.bindings import ExecBinding
from nanocloud.controllers.uninstall import KEEP_SERVICES
from nanocloud.models.binding import BINDING
from nanocloud.models.bundle import BUNDLE
from nanocloud.models.core import EVENT, PERSISTENT_VOLUME_CLAIM, SECRET
from nanocloud.models.meta import condition_is_true
from nanocloud.models.pod import POD
from nanocloud.providers.binding import BindingCall, BindingResult
from nanocloud.testkit import FakeProgram
from nanocloud.testkit.planning import MARIADB, MARIADB_EXPORTS, WORDPRESS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio.testing import MockClock

    from nanocloud.models.meta import Object
    from nanocloud.providers.runtime import ContainerId
    from nanocloud.testkit import FakeExec
    from nanocloud.testkit.simulation import Server, Simulation

CONDITIONS = ["ProfilePrepared", "SecretsProvisioned", "Bound", "Ready"]


@pytest.fixture(autouse=True)
def complaints() -> Iterator[list[dict[str, Any]]]:
    """What workers log when something unforeseen happens; a test that foresees it takes it out."""
    with capture_logs() as logs:
        yield [] if logs is None else logs  # type: ignore[misc]
    assert [entry for entry in logs if entry["log_level"] in ("error", "warning")] == []


def traces(machine: Simulation) -> dict[str, Any]:
    """What is left on the machine."""
    return {
        "containers": sorted(machine.runtime.containers),
        "sandboxes": sorted(machine.network._attached),
        "volumes": sorted(machine.volume._volumes),
        "addresses": sorted(machine.network._reserved),
    }


NOTHING: dict[str, Any] = {"containers": [], "sandboxes": [], "volumes": [], "addresses": []}


async def container_id(server: Server, bundle: str) -> ContainerId:
    text: str = (await server.container(bundle))["containerID"]
    return text.removeprefix("nanocloud://")  # type: ignore[return-value]


async def secret_values(server: Server) -> set[str]:
    """Every secret in plaintext."""
    found = set()
    for secret in (await server.store.list(SECRET)).items:
        found |= {base64.b64decode(value).decode() for value in secret["data"].values()}
    return found


# ---- installing ------------------------------------------------------------------------------------------------------


async def test_installing_brings_the_selected_service(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        await server.install("wordpress")
        await server.ready("wordpress", "mariadb")
        assert await server.names(BUNDLE) == ["mariadb", "wordpress"]
        assert (await server.status("wordpress"))["services"] == {"database": "mariadb"}
        assert "ServiceAdded" in await server.reasons("wordpress")


async def test_the_binding_runs_once_after_its_target_is_ready_and_before_the_dependant_starts(
    machine: Simulation, mock_clock: MockClock
) -> None:
    order: list[str] = []

    async def probe(session: FakeExec) -> int:
        order.append(f"{session.container.spec.hostname} is asked")
        return 0

    def bind(call: BindingCall) -> int:
        order.append(call.command)
        assert machine.runtime.containers[call.container].spec.hostname == "mariadb"
        return 0

    def program(spec: Any) -> FakeProgram:
        order.append(f"{spec.hostname} starts")
        return FakeProgram()

    machine.runtime.exec_handler, machine.runtime.program = probe, program
    machine.fake_binding.handler = bind
    async with machine.run() as server:
        await server.install("wordpress")
        await server.ready("wordpress")
        first = list(dict.fromkeys(order))
        assert first == [
            "mariadb starts",
            "mariadb is asked",
            "create_user",
            "wordpress starts",
            "wordpress is asked",
        ]
        await server.pass_time(600)
        assert order.count("create_user") == 1
        profile = await server.profiles.get("default", "wordpress")
        assert profile is not None
        (record,) = profile.bindings.values()
        assert (record.command, record.target, record.attempts, record.exit_code) == ("create_user", "mariadb", 1, 0)
        assert record.result is BindingResult.COMPLETED


async def test_a_binding_gets_the_resolved_arguments(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        await server.install("wordpress", database_name="blog")
        await server.ready("wordpress")
        (call,) = machine.fake_binding.runs
        name, user, password = call.arguments
        assert (name.value, name.secret, user.value) == ("blog", False, "wordpress")
        assert (len(password.value), password.secret) == (32, True)
        assert password.value in await secret_values(server)


async def test_conditions_come_true_in_order_and_each_is_told_once(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        await server.install("wordpress")
        seen: list[list[str]] = []

        async def holds() -> bool:
            bundle = await server.bundle("wordpress") or {}
            true = [kind for kind in CONDITIONS if condition_is_true(bundle, kind)]
            assert true == CONDITIONS[: len(true)]
            if true not in seen:
                seen.append(true)
            return true == CONDITIONS

        await server.until(holds, "wordpress is ready")
        assert seen == sorted(seen, key=len)
        reasons = await server.reasons("wordpress")
        assert [reason for reason in reasons if reason in CONDITIONS] == CONDITIONS
        assert [reason for reason in reasons if reason.startswith("Binding")] == ["BindingStarted", "BindingCompleted"]
        events = (await server.store.list(EVENT)).items
        assert {e["count"] for e in events if e["reason"] in (*CONDITIONS, "BindingCompleted")} == {1}


async def test_a_service_that_is_there_is_used(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        await server.install("mariadb")
        await server.ready("mariadb")
        before = await container_id(server, "mariadb")
        await server.install("wordpress")
        await server.ready("wordpress")
        assert await container_id(server, "mariadb") == before
        assert "ServiceAdded" not in await server.reasons("wordpress")


async def test_names_of_services_resolve_to_their_pods(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        await server.install("wordpress")
        await server.ready("wordpress")
        pod = await server.pod("mariadb") or {}
        addresses = [str(address) for address in machine.network.names["mariadb.default.svc"]]
        assert addresses == [entry["ip"] for entry in pod["status"]["podIPs"]]
        assert set(machine.network.names) == {
            "mariadb.default.svc",
            "mariadb.nanocloud.local",
            "wordpress.default.svc",
            "wordpress.nanocloud.local",
        }


async def test_nothing_happens_while_nothing_changes(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        await server.install("wordpress")
        await server.ready("wordpress")
        await server.settle()
        revision = server.store.revision
        await server.pass_time(300)
        assert server.store.revision == revision


# ---- secrets ---------------------------------------------------------------------------------------------------------


async def test_no_secret_is_in_plaintext_anywhere(machine: Simulation, mock_clock: MockClock) -> None:
    argv: list[str] = []
    results = [1, 1, 0]

    async def talkative(session: FakeExec) -> int:
        """Prints what it should keep for itself, and fails twice."""
        argv.extend(session.spec.argv)
        if not session.spec.secrets:
            return 0
        for secret in session.spec.secrets:
            await session.stdout.send_all(b"IDENTIFIED BY '" + secret.removeprefix(b"--password=") + b"'\n")
        return results.pop(0)

    machine.providers.binding = ExecBinding()
    machine.runtime.exec_handler = talkative
    # More than one secret value, alone and inside another word.
    machine.add_image(
        "wordpress",
        {
            **WORDPRESS,
            "database=&mariadb": [
                "*database_host",
                "&create_user $database_name --password=$database_password $admin_password",
            ],
            "admin_password": ["!rand 12 alnum"],
            "runtime_args": ["*admin_password", "--quiet"],
        },
    )
    async with machine.run() as server:
        await server.install("wordpress")
        await server.ready("wordpress")
        secrets = {value for value in await secret_values(server) if len(value) >= 8}
        assert len(secrets) >= 4
        objects = [
            obj
            for kind in (BUNDLE, BINDING, POD, EVENT, PERSISTENT_VOLUME_CLAIM)
            for obj in (await server.store.list(kind)).items
        ]
        bindings = (await server.store.list(BINDING)).items
        assert "********" in bindings[0]["status"]["output"]
        shown = json.dumps(objects) + " ".join(argv)
        assert not {secret for secret in secrets if secret in shown}
        assert "/dev/fd/3" in argv
    history = machine.disk.changes(b"", None, after=0, limit=100_000).changes
    stored = b"".join(change.key + change.record.value for change in history if change.record is not None)
    assert b"wordpress" in stored
    assert not {secret for secret in secrets if secret.encode() in stored}
    assert not {secret for secret in secrets if base64.b64encode(secret.encode()) in stored}


async def test_a_secret_reaches_the_container_it_is_for(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        await server.install("mariadb", root_password="given by hand")
        await server.ready("mariadb")
        (container,) = machine.runtime.containers.values()
        assert container.spec.environment["MARIADB_ROOT_PASSWORD"] == "given by hand"
        assert (await server.status("mariadb"))["options"]["root_password"] == "********"


async def test_tls_files_are_projected_and_certify_the_names_of_the_service(
    machine: Simulation, mock_clock: MockClock
) -> None:
    from cryptography import x509

    machine.add_image("web", {"env_CERT": ["!tls cert"], "env_KEY": ["!tls key"]})
    async with machine.run() as server:
        await server.install("web")
        await server.ready("web")
        (container,) = machine.runtime.containers.values()
        files = {file.path: file for file in container.spec.files}
        certificate = x509.load_pem_x509_certificate(files[container.spec.environment["CERT"]].content)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == [
            "web",
            "web.default",
            "web.default.svc",
            "web.nanocloud.local",
            "localhost",
        ]
        assert files[container.spec.environment["KEY"]].content.startswith(b"-----BEGIN PRIVATE KEY-----")
        assert files["/run/nanocloud/tls/ca.crt"].content == machine.authority.certificate
        before = await container_id(server, "web")
        await server.restart("web", "1")
        await server.until(lambda: _other_container(server, "web", before))
        (container,) = machine.runtime.containers.values()
        assert {f.path: f for f in container.spec.files} == files


async def _other_container(server: Server, bundle: str, before: str) -> bool:
    now = (await server.container(bundle)).get("containerID", "")
    return bool(now) and now != f"nanocloud://{before}" and await server._is_ready(bundle)


# ---- stop, start, restart, change ------------------------------------------------------------------------------------


async def test_stopping_keeps_data_address_and_credentials(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        await server.install("wordpress")
        await server.ready("wordpress")
        address = machine.network.names["wordpress.default.svc"]
        secrets = await secret_values(server)
        await server.change("wordpress", start=False)
        status = await server.reason("wordpress", "Stopped")
        assert status["phase"] == "Stopped"
        assert [c["status"] for c in status["conditions"]] == ["True", "True", "True", "False"]
        assert await server.pod("wordpress") is None
        assert len(machine.runtime.running) == 1
        assert "wordpress.default.svc" not in machine.network.names
        assert len(machine.volume._volumes) == 2
        await server.change("wordpress", start=True)
        await server.ready("wordpress")
        assert machine.network.names["wordpress.default.svc"] == address
        assert await secret_values(server) == secrets
        assert len(machine.fake_binding.runs) == 1


async def test_a_service_that_is_stopped_from_the_start_has_all_but_its_pod(
    machine: Simulation, mock_clock: MockClock
) -> None:
    async with machine.run() as server:
        await server.store.create(
            BUNDLE,
            {"metadata": {"name": "mariadb", "namespace": "default"}, "spec": {"service": "mariadb", "start": False}},
        )
        status = await server.reason("mariadb", "Stopped")
        assert [c["status"] for c in status["conditions"]] == ["True", "True", "True", "False"]
        assert await server.names(PERSISTENT_VOLUME_CLAIM) == ["volume-1-mariadb-0"]
        assert machine.runtime.containers == {}


async def test_a_restart_gives_a_new_container_once(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        await server.install("mariadb")
        await server.ready("mariadb")
        before = await container_id(server, "mariadb")
        await server.restart("mariadb", "2026-01-01T00:00:00Z")
        await server.until(lambda: _other_container(server, "mariadb", before))
        assert (await server.status("mariadb"))["restartedAt"] == "2026-01-01T00:00:00Z"
        after = await container_id(server, "mariadb")
        await server.pass_time(300)
        assert await container_id(server, "mariadb") == after
        assert list(machine.runtime.containers) == [after]


async def test_a_changed_option_replaces_the_pod(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        await server.install("wordpress")
        await server.ready("wordpress")
        other = await container_id(server, "mariadb")
        await server.change("wordpress", options={"port_1": "8081->80"})
        await server.ready("wordpress")
        containers = machine.runtime.containers
        assert len(containers) == 2
        assert other in containers
        (network,) = [n for n in machine.network._attached.values() if n.ports]
        assert network.ports[0].host_port == 8081


async def test_a_status_answers_the_spec_that_was_read_for_it(machine: Simulation, mock_clock: MockClock) -> None:
    """A change that comes while an earlier one is carried out is not seen yet, and the status does not say so."""
    machine.add_image("site", {"title": ["none"], "env_TITLE": ["*title", "$title"]})
    async with machine.run() as server:
        await server.install("site")
        await server.ready("site")
        machine.images.calls.delay("local", 20)
        await server.change("site", options={"title": "one"})
        await server.pass_time(5)
        await server.change("site", options={"title": "two"})
        await server.pass_time(20)
        status = await server.status("site")
        assert (status["observedGeneration"], status["options"]["title"]) == (2, "one")
        assert {condition["observedGeneration"] for condition in status["conditions"]} == {2}
        await server.ready("site")
        status = await server.status("site")
        assert (status["observedGeneration"], status["options"]["title"]) == (3, "two")


async def test_a_changed_secret_replaces_the_pod_and_binds_again(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        await server.install("wordpress")
        await server.ready("wordpress")
        before = await container_id(server, "wordpress")
        await server.change("wordpress", options={"database_password": "another one"})
        await server.until(lambda: _other_container(server, "wordpress", before))
        assert [call.arguments[2].value for call in machine.fake_binding.runs][1:] == ["another one"]
        container = machine.runtime.containers[await container_id(server, "wordpress")]
        assert container.spec.environment["DB_PASSWORD"] == "another one"


async def test_a_service_that_was_installed_again_is_bound_again(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        await server.install("mariadb")
        await server.install("wordpress")
        await server.ready("wordpress")
        await server.store.delete(BUNDLE, "default", "mariadb")

        async def bound_anew() -> bool:
            return len(machine.fake_binding.calls.of("run")) == 2

        await server.until(bound_anew)
        await server.ready("wordpress")


async def test_forced_bindings_run_once_more_and_only_once(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        await server.install("wordpress")
        await server.ready("wordpress")
        pod = await container_id(server, "wordpress")
        await server.change("wordpress", forceBindings="now")

        async def forced() -> bool:
            return (await server.status("wordpress")).get("forcedBindings") == "now"

        await server.until(forced)
        await server.pass_time(300)
        assert len(machine.fake_binding.runs) == 2
        assert await container_id(server, "wordpress") == pod


async def test_a_moved_tag_does_not_turn_a_restart_into_an_update(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        await server.install("mariadb")
        await server.ready("mariadb")
        image = (await server.status("mariadb"))["image"]
        before = await container_id(server, "mariadb")
        machine.add_image("mariadb", MARIADB, exports=MARIADB_EXPORTS)
        await server.restart("mariadb", "1")
        await server.until(lambda: _other_container(server, "mariadb", before))
        assert (await server.status("mariadb"))["image"] == image


async def test_a_changed_image_replaces_the_pod_and_keeps_the_profile(
    machine: Simulation, mock_clock: MockClock
) -> None:
    async with machine.run() as server:
        await server.install("wordpress")
        await server.ready("wordpress")
        before, secrets = await container_id(server, "wordpress"), await secret_values(server)
        newer = machine.add_image("wordpress-next", WORDPRESS)
        await server.change("wordpress", image="wordpress-next")
        await server.until(lambda: _other_container(server, "wordpress", before))
        await server.ready("wordpress")
        assert (await server.status("wordpress"))["image"].endswith(newer.digest)
        assert await secret_values(server) == secrets


# ---- uninstalling ----------------------------------------------------------------------------------------------------


async def left(server: Server) -> list[str]:
    """Objects that are neither namespaces nor events."""
    kinds = (BUNDLE, POD, BINDING, SECRET, PERSISTENT_VOLUME_CLAIM)
    return [f"{kind.kind} {name}" for kind in kinds for name in await server.names(kind)]


async def test_uninstalling_leaves_nothing_and_takes_what_was_installed_for_it(
    machine: Simulation, mock_clock: MockClock
) -> None:
    async with machine.run() as server:
        await server.install("wordpress")
        await server.ready("wordpress")
        await server.uninstall("wordpress")
        await server.gone("wordpress", "mariadb")
        await server.settle()
        assert await left(server) == []
        assert traces(machine) == NOTHING
        assert machine.network.names == {}
        assert (await server.store.keyspace.list(("profiles",))).entries == ()
    assert not list((machine.folder / "logs" / "pods").glob("*"))


async def test_uninstalling_keeps_a_service_that_the_user_installed(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        await server.install("mariadb")
        await server.install("wordpress")
        await server.ready("wordpress")
        await server.uninstall("wordpress")
        await server.gone("wordpress")
        await server.pass_time(60)
        assert await server._is_ready("mariadb")
        assert await left(server) == [
            "Bundle mariadb",
            "Pod mariadb-0",
            "Secret mariadb-options",
            "PersistentVolumeClaim volume-1-mariadb-0",
        ]


async def test_uninstalling_keeps_a_service_that_another_bundle_uses(
    machine: Simulation, mock_clock: MockClock
) -> None:
    async with machine.run() as server:
        await server.install("wordpress")
        await server.ready("wordpress")
        await server.install("wordpress", name="blog", port_1="8081->80", database_name="blog")
        await server.ready("blog")
        await server.uninstall("wordpress")
        await server.gone("wordpress")
        await server.pass_time(60)
        assert await server.names(BUNDLE) == ["blog", "mariadb"]
        await server.uninstall("blog")
        await server.gone("blog", "mariadb")
        assert traces(machine) == NOTHING


async def test_uninstalling_keeps_services_when_asked_to(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        await server.install("wordpress")
        await server.ready("wordpress")

        def keep(bundle: Object) -> None:
            bundle["metadata"].setdefault("annotations", {})[KEEP_SERVICES] = "true"

        await server.store.modify(BUNDLE, "default", "wordpress", keep)
        await server.uninstall("wordpress")
        await server.gone("wordpress")
        await server.pass_time(60)
        assert await server.names(BUNDLE) == ["mariadb"]


async def test_uninstalling_while_the_selected_service_is_still_being_installed(
    machine: Simulation, mock_clock: MockClock
) -> None:
    machine.images.calls.delay("resolve", 60)
    async with machine.run() as server:
        await server.install("wordpress")

        async def added() -> bool:
            return await server.bundle("mariadb") is not None

        await server.until(added)
        await server.uninstall("wordpress")
        await server.gone("wordpress", "mariadb")
        await server.pass_time(120)
        assert await left(server) == []
        assert traces(machine) == NOTHING


@pytest.mark.parametrize("after_seconds", [0.5, 5.0, 12.0, 15.5, 22.0, 25.0, 31.0])
async def test_uninstalling_at_any_moment_of_a_slow_installation_leaves_nothing(
    machine: Simulation, mock_clock: MockClock, after_seconds: float
) -> None:
    for fake, method in (
        (machine.images, "ensure"),
        (machine.runtime, "create"),
        (machine.network, "attach"),
        (machine.volume, "publish"),
        (machine.fake_binding, "run"),
    ):
        fake.calls.delay(method, 5)
    async with machine.run() as server:
        await server.install("wordpress")
        await server.pass_time(after_seconds)
        await server.uninstall("wordpress")
        await server.gone("wordpress", "mariadb")
        await server.settle()
        assert await left(server) == []
        assert traces(machine) == NOTHING


async def test_a_service_can_be_installed_again_after_it_was_removed(
    machine: Simulation, mock_clock: MockClock
) -> None:
    async with machine.run() as server:
        for _ in range(2):
            await server.install("wordpress")
            await server.ready("wordpress")
            await server.uninstall("wordpress")
            await server.gone("wordpress", "mariadb")
        assert len(machine.fake_binding.runs) == 2
        assert len({call.arguments[2].value for call in machine.fake_binding.runs}) == 2


async def test_a_service_goes_only_when_its_pod_has_stopped(machine: Simulation, mock_clock: MockClock) -> None:
    machine.runtime.program = lambda _: FakeProgram(stop_exit_code=None)
    async with machine.run() as server:
        await server.install("mariadb")
        await server.ready("mariadb")
        await server.uninstall("mariadb")
        await server.pass_time(29)
        assert (await server.status("mariadb"))["phase"] == "Terminating"
        assert len(machine.volume._volumes) == 1
        await server.gone("mariadb")
        assert traces(machine) == NOTHING


async def test_a_status_that_somebody_else_writes_is_put_right(machine: Simulation, mock_clock: MockClock) -> None:
    def spoil(bundle: Object) -> None:
        bundle["status"]["phase"] = "Failed"

    async with machine.run() as server:
        await server.install("mariadb")
        await server.ready("mariadb")
        await server.settle()
        before = await server.status("mariadb")
        for _ in range(2):
            await server.store.modify(BUNDLE, "default", "mariadb", spoil, subresource="status")
            await server.settle()
            assert await server.status("mariadb") == before
