"""Profiles carried out of a node and back: the same configuration, or a refusal."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from nanocloud.controllers.transfer import ProfileTransfer, bundle_of
from nanocloud.errors import AlreadyExistsError, InvalidError, NotFoundError, UnavailableError
from nanocloud.keyspace import Keyspace
from nanocloud.models.bundle import BUNDLE
from nanocloud.models.core import SECRET
from nanocloud.objects import EventRecorder
from nanocloud.secrets import Envelope
from nanocloud.testkit.accounts import EXPORTS, FakeAccounts
from nanocloud.testkit.objects import NODE_KEY
from nanocloud.testkit.planning import MARIADB, WORDPRESS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio.testing import MockClock

    from nanocloud.models.meta import Object
    from nanocloud.testkit.simulation import Server, Simulation


def transfer_of(server: Server, key: bytes = NODE_KEY) -> ProfileTransfer:
    events = EventRecorder(server.store)
    return ProfileTransfer(store=server.store, profiles=server.profiles, events=events, envelope=Envelope(key))


async def import_(
    server: Server, archive: bytes, name: str = "wordpress", given: Mapping[str, str] | None = None
) -> Object:
    transfer = transfer_of(server)
    imported = transfer.read(archive)
    return await transfer.restore(bundle_of(imported, "default", name, given or {}), imported)


async def options(server: Server, bundle: str = "wordpress") -> dict[str, Any]:
    profile = await server.profiles.get("default", bundle)
    assert profile is not None
    return dict(profile.options)


async def password_in_secret(server: Server, bundle: str = "wordpress") -> str:
    secret = await server.store.get(SECRET, "default", f"{bundle}-options")
    return base64.b64decode(secret["data"]["database_password"]).decode()


async def installed(server: Server, **given: str) -> None:
    await server.install("wordpress", **given)
    await server.ready("wordpress")


async def uninstalled(server: Server) -> None:
    await server.uninstall("wordpress")
    await server.gone("wordpress", "mariadb")


async def test_an_import_after_uninstalling_gives_the_same_configuration(
    machine: Simulation, mock_clock: MockClock
) -> None:
    async with machine.run() as server:
        await installed(server, port_1="81->80")
        before, password = await options(server), await password_in_secret(server)
        archive = await transfer_of(server).export("default", "wordpress", secrets=True)
        assert password.encode() not in archive
        await uninstalled(server)
        runs = len(machine.fake_binding.calls.of("run"))

        made = await import_(server, archive)
        assert made["spec"]["options"] == {"port_1": "81->80"}
        await server.ready("wordpress")
        after = await options(server)
        assert {name: option.value for name, option in after.items()} == {n: o.value for n, o in before.items()}
        assert await password_in_secret(server) == password
        # The database is another one now, so the account is made anew.
        assert len(machine.fake_binding.calls.of("run")) == runs + 1
        assert (await server.reasons("wordpress")).count("ProfileImported") == 1


async def test_bindings_run_again_although_the_selected_service_stayed(
    machine: Simulation, mock_clock: MockClock
) -> None:
    async with machine.run() as server:
        await server.install("mariadb")
        await installed(server)
        archive = await transfer_of(server).export("default", "wordpress", secrets=True)
        await server.uninstall("wordpress")
        await server.gone("wordpress")
        runs = len(machine.fake_binding.calls.of("run"))
        await import_(server, archive)
        await server.ready("wordpress")
        assert len(machine.fake_binding.calls.of("run")) > runs


async def test_without_secrets_they_are_decided_anew(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        await installed(server, database_name="blog")
        password = await password_in_secret(server)
        archive = await transfer_of(server).export("default", "wordpress", secrets=False)
        assert transfer_of(server).read(archive).anew == ("database_password", "env_DB_PASSWORD")
        await uninstalled(server)
        await import_(server, archive)
        await server.ready("wordpress")
        assert (await options(server))["database_name"].value == "blog"
        assert await password_in_secret(server) != password


async def test_without_secrets_those_that_were_given_have_to_be_given_again(
    machine: Simulation, mock_clock: MockClock
) -> None:
    machine.add_image("wordpress", {**WORDPRESS, "secret_1": ["token"], "?token": []})
    async with machine.run() as server:
        await installed(server, token="first-t0ken")
        archive = await transfer_of(server).export("default", "wordpress", secrets=False)
        assert b"t0ken" not in archive
        await uninstalled(server)
        with pytest.raises(InvalidError, match="not in this export: token") as caught:
            await import_(server, archive)
        assert [cause.field for cause in caught.value.causes] == ["spec.options.token"]
        assert await server.names(BUNDLE) == []
        await import_(server, archive, given={"token": "second"})
        await server.ready("wordpress")
        assert (await options(server))["token"].value == "second"


async def test_an_option_that_was_never_planned_is_exported_as_a_secret(
    machine: Simulation, mock_clock: MockClock
) -> None:
    async with machine.run() as server:
        await installed(server)
        await server.change("wordpress", options={"nonsense": "perhaps-a-password"})
        await server.reason("wordpress", "OptionsInvalid")
        archive = await transfer_of(server).export("default", "wordpress", secrets=True)
        assert b"perhaps-a-password" not in archive


async def test_a_name_that_is_taken_is_refused_and_its_profile_stays(
    machine: Simulation, mock_clock: MockClock
) -> None:
    async with machine.run() as server:
        await installed(server)
        archive = await transfer_of(server).export("default", "wordpress", secrets=True)
        await server.change("wordpress", options={"port_1": "82->80"})
        await server.ready("wordpress")
        before = await options(server)
        with pytest.raises(AlreadyExistsError):
            await import_(server, archive)
        assert await options(server) == before


async def test_an_import_under_another_name_stands_beside_the_first(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        await installed(server)
        archive = await transfer_of(server).export("default", "wordpress", secrets=True)
        await import_(server, archive, "blog", {"port_1": "82->80"})
        await server.ready("blog")
        assert await password_in_secret(server, "blog") == await password_in_secret(server)
        assert (await options(server, "blog"))["port_1"].value == "82->80"


async def test_a_copy_cannot_take_the_account_of_the_service_that_it_was_made_from(
    machine: Simulation, mock_clock: MockClock
) -> None:
    machine.add_image("mariadb", MARIADB, exports=EXPORTS)
    machine.fake_binding.handler = accounts = FakeAccounts()
    async with machine.run() as server:
        await server.install("mariadb")
        await installed(server)
        archive = await transfer_of(server).export("default", "wordpress", secrets=True)
        await import_(server, archive, "copy", {"port_1": "82->80"})
        status = await server.reason("copy", "OptionsInvalid")
        assert "belongs to wordpress already" in status["message"]
        await server.uninstall("copy")
        await server.gone("copy")
        await server.settle()
        assert list(accounts.users) == ["wordpress"]
        assert "revoke_user" not in accounts.log
        # Once the first is gone, and its account with it, the copy takes its place.
        await import_(server, archive, "copy")
        await server.uninstall("wordpress")
        await server.ready("copy")
        assert list(accounts.users) == ["wordpress"]


async def test_a_stopped_service_comes_back_stopped(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        await installed(server)
        await server.change("wordpress", start=False, image=None, deps=True)
        await server.reason("wordpress", "Stopped")
        archive = await transfer_of(server).export("default", "wordpress", secrets=True)
        await uninstalled(server)
        await import_(server, archive)
        await server.reason("wordpress", "Stopped")


async def test_another_nodes_export_is_refused_and_nothing_is_made(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        await installed(server)
        archive = await transfer_of(server).export("default", "wordpress", secrets=True)
        await uninstalled(server)
        revision = server.store.revision
        with pytest.raises(InvalidError, match="was made by another node"):
            transfer_of(server, key=bytes(32)).read(archive)
        assert server.store.revision == revision


async def test_a_crash_leaves_the_bundle_with_its_profile_or_neither(
    machine: Simulation, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with machine.run() as server:
        await installed(server)
        archive = await transfer_of(server).export("default", "wordpress", secrets=True)
        await uninstalled(server)
        transacted: list[set[tuple[str, ...]]] = []
        transact = Keyspace.transact

        async def seen(self: Keyspace, compares: Any, operations: Any) -> int:
            transacted.append({operation.key for operation in operations})
            return await transact(self, compares, operations)

        monkeypatch.setattr(Keyspace, "transact", seen)
        await import_(server, archive)
        (together,) = [keys for keys in transacted if ("profiles", "default", "wordpress") in keys]
        assert any("bundles" in key for key in together)


async def test_what_is_not_there_cannot_be_exported(machine: Simulation, mock_clock: MockClock) -> None:
    async with machine.run() as server:
        with pytest.raises(NotFoundError):
            await transfer_of(server).export("default", "wordpress", secrets=False)
        await server.install("wordpress", port_1="none")
        await server.reason("wordpress", "OptionsInvalid")
        with pytest.raises(UnavailableError, match="has no profile yet"):
            await transfer_of(server).export("default", "wordpress", secrets=False)
