"""What becomes of a binding: verified, rotated, revoked; by whom, when, and never for somebody else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from nanocloud.errors import InvalidError, NotFoundError
from nanocloud.kubelet.bindings import MAX_ATTEMPTS
from nanocloud.models.binding import BINDING
from nanocloud.models.bundle import BUNDLE
from nanocloud.models.meta import name_of, uid_of
from nanocloud.models.pod import POD
from nanocloud.testkit.accounts import EXPORTS, FakeAccounts
from nanocloud.testkit.faults import Fault, FaultPlan
from nanocloud.testkit.objects import open_store
from nanocloud.testkit.planning import MARIADB, WORDPRESS
from nanocloud.testkit.storage import FakeStorage

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from nanocloud.providers.binding import BindingCall
    from nanocloud.testkit.simulation import Server, Simulation

SITE = {key: value for key, value in WORDPRESS.items() if key != "port_1"}  # two of them on one node


@pytest.fixture
def accounts(machine: Simulation) -> FakeAccounts:
    machine.add_image("mariadb", MARIADB, exports=EXPORTS)
    machine.add_image("wordpress", SITE)
    machine.fake_binding.handler = FakeAccounts()
    return machine.fake_binding.handler


async def password_of(server: Server, bundle: str) -> str:
    profile = await server.profiles.get("default", bundle)
    assert profile is not None
    return profile.options["database_password"].value


async def started(server: Server, *bundles: str) -> None:
    await server.install("mariadb")
    for bundle in bundles:
        await server.install("wordpress", name=bundle, database_name=bundle, database_user=bundle)
    await server.ready("mariadb", *bundles)
    await server.settle()


async def begun(machine: Simulation, server: Server, bundle: str) -> None:
    """The first binding command of the bundle runs, and will for a minute."""
    machine.fake_binding.calls.delay("run", 60)
    await server.install("mariadb")
    await server.ready("mariadb")
    await server.install("wordpress", name=bundle, database_name=bundle, database_user=bundle)

    async def runs() -> bool:
        return bool(machine.fake_binding.calls.log)

    await server.until(runs)


def ran(machine: Simulation) -> list[str]:
    return [call.command for call in machine.fake_binding.runs]


def key_of(binding: str) -> str:
    """As the calls of a storage show it."""
    return f"/registry/nanocloud.io/bindings/default/{binding}"


async def test_a_binding_counts_once_it_is_verified(
    machine: Simulation, mock_clock: MockClock, accounts: FakeAccounts
) -> None:
    async with machine.run() as server:
        await started(server, "blog")
        assert ran(machine) == ["create_user", "verify_user"]
        assert accounts.users["blog"].password == await password_of(server, "blog")
        (binding,) = (await server.status("blog"))["bindings"]
        assert (binding["command"], binding["attempts"], binding["exitCode"]) == ("create_user", 1, 0)


async def test_a_binding_that_does_not_verify_is_made_again(
    machine: Simulation, mock_clock: MockClock, accounts: FakeAccounts
) -> None:
    def forgetful(call: BindingCall) -> int | None:
        if call.command == "verify_user" and len(machine.fake_binding.runs) == 2:
            accounts.users.clear()
        return accounts(call)

    machine.fake_binding.handler = forgetful
    async with machine.run() as server:
        await started(server, "blog")
        assert ran(machine) == ["create_user", "verify_user"] * 2
        (binding,) = (await server.status("blog"))["bindings"]
        assert binding["attempts"] == 2


async def test_what_never_verifies_fails_and_says_which_command(
    machine: Simulation, mock_clock: MockClock, accounts: FakeAccounts
) -> None:
    machine.fake_binding.handler = lambda call: 1 if call.command == "verify_user" else accounts(call)
    async with machine.run() as server:
        await server.install("wordpress")
        status = await server.reason("wordpress", "BindingFailed")
        assert "verify_user in mariadb ended with 1" in status["message"]


async def test_a_changed_secret_alone_is_rotated(
    machine: Simulation, mock_clock: MockClock, accounts: FakeAccounts
) -> None:
    async with machine.run() as server:
        await started(server, "blog")
        await server.change("blog", options={"database_password": "another"})
        await server.ready("blog")
        assert ran(machine)[2:] == ["rotate_user", "verify_user"]
        assert accounts.users["blog"].password == "another"


async def test_uninstalling_revokes_and_leaves_the_others(
    machine: Simulation, mock_clock: MockClock, accounts: FakeAccounts
) -> None:
    async with machine.run() as server:
        await started(server, "blog", "shop")
        await server.uninstall("blog")
        await server.gone("blog")
        assert set(accounts.users) == {"shop"}
        assert accounts.databases == {"blog", "shop"}, "data stays"
        call = machine.fake_binding.runs[-1]
        assert (call.command, [a.value for a in call.arguments]) == ("revoke_user", ["blog", "blog", "/dev/null"])
        assert not any(argument.secret for argument in call.arguments)
        assert all(o["spec"]["bundle"] == "shop" for o in (await server.store.list(BINDING)).items)
        assert (await server.status("shop"))["phase"] == "Running"


async def test_a_service_that_goes_along_is_not_asked_to_revoke(
    machine: Simulation, mock_clock: MockClock, accounts: FakeAccounts
) -> None:
    async with machine.run() as server:
        await server.install("wordpress")
        await server.ready("wordpress")
        await server.uninstall("wordpress")
        await server.gone("wordpress", "mariadb")
        assert "revoke_user" not in ran(machine)


async def test_a_stopped_target_revokes_when_it_runs_again(
    machine: Simulation, mock_clock: MockClock, accounts: FakeAccounts
) -> None:
    async with machine.run() as server:
        await started(server, "blog")
        await server.change("mariadb", start=False)
        await server.reason("mariadb", "Stopped")
        await server.uninstall("blog")
        await server.gone("blog")
        assert set(accounts.users) == {"blog"}
        assert "BindingNotRevoked" in await server.reasons("mariadb")
    async with machine.run() as server:
        await server.change("mariadb", start=True)
        await server.until(lambda: _nobody(accounts))
        await server.settle()
        assert await server.names(BINDING) == []


async def test_a_service_stops_although_one_that_it_is_to_be_bound_in_is_stopped(
    machine: Simulation, mock_clock: MockClock, accounts: FakeAccounts
) -> None:
    async with machine.run() as server:
        await started(server, "blog")
        await server.change("mariadb", start=False)
        await server.reason("mariadb", "Stopped")
        await server.change("blog", forceBindings="again", start=False)

        async def has_stopped() -> bool:
            return not await server.names(POD) and not await machine.providers.runtime.list()

        await server.until(has_stopped)


async def _nobody(accounts: FakeAccounts) -> bool:
    return not accounts.users


async def test_a_name_that_is_still_to_be_revoked_is_free_again_once_it_is(
    machine: Simulation, mock_clock: MockClock, accounts: FakeAccounts
) -> None:
    async with machine.run() as server:
        await started(server, "blog")
        await server.change("mariadb", start=False)
        await server.reason("mariadb", "Stopped")
        await server.uninstall("blog")
        await server.gone("blog")
        await server.install("wordpress", name="blog", database_name="blog", database_user="blog")
        await server.change("mariadb", start=True)
        await server.ready("blog")
        await server.settle()
        assert accounts.log[2:] == ["revoke_user", "create_user", "verify_user"]
        assert accounts.users["blog"].password == await password_of(server, "blog")


async def test_a_revocation_that_fails_does_not_hold_the_bundle_and_is_not_forgotten(
    machine: Simulation, mock_clock: MockClock, accounts: FakeAccounts
) -> None:
    machine.fake_binding.handler = lambda call: 9 if call.command == "revoke_user" else accounts(call)
    async with machine.run() as server:
        await started(server, "blog")
        await server.uninstall("blog")
        await server.gone("blog")
        assert ran(machine).count("revoke_user") == MAX_ATTEMPTS
        assert "BindingNotRevoked" in await server.reasons("mariadb")
        await server.pass_time(3600)
        assert ran(machine).count("revoke_user") > MAX_ATTEMPTS
        machine.fake_binding.handler = accounts
        await server.until(lambda: _nobody(accounts))


async def test_a_revocation_that_was_given_up_never_hits_what_was_made_again(
    machine: Simulation, mock_clock: MockClock, accounts: FakeAccounts
) -> None:
    machine.fake_binding.handler = lambda call: 9 if call.command == "revoke_user" else accounts(call)
    async with machine.run() as server:
        await started(server, "blog")
        await server.uninstall("blog")
        await server.gone("blog")
        await server.install("wordpress", name="blog", database_name="blog", database_user="blog")
        await server.ready("blog")
        machine.fake_binding.handler = accounts
        await server.pass_time(3600)
        assert accounts.users["blog"].password == await password_of(server, "blog")


async def test_a_revocation_that_gives_way_to_what_is_made_again_is_not_forgotten_by_a_crash(
    machine: Simulation, mock_clock: MockClock, accounts: FakeAccounts
) -> None:
    machine.fake_binding.handler = lambda call: 9 if call.command == "revoke_user" else accounts(call)
    async with machine.run() as server:
        await started(server, "blog")
        await server.uninstall("blog")
        await server.gone("blog")
        [revocation] = await server.names(BINDING)
        machine.faults.source = plan = FaultPlan()
        plan.add(Fault(crash=True, after=True), method="transact", subject=key_of(revocation))
        await server.install("wordpress", name="blog", database_name="blog", database_user="blog")
        await server.ready("blog")
    assert set(accounts.users) == {"blog"}
    async with open_store(FakeStorage(machine.disk)) as store:
        [again] = {name_of(binding) for binding in (await store.list(BINDING)).items} - {revocation}
        await store.delete(BUNDLE, "default", "blog")
    machine.fake_binding.handler = accounts
    plan.add(Fault(delay_seconds=60), method="transact", subject=key_of(again))  # it does not begin before that is seen
    async with machine.run() as server:
        await server.gone("blog")
        await server.pass_time(600)
        assert accounts.users == {}


async def test_a_target_that_goes_takes_its_revocations_along(
    machine: Simulation, mock_clock: MockClock, accounts: FakeAccounts
) -> None:
    machine.fake_binding.handler = lambda call: 9 if call.command == "revoke_user" else accounts(call)
    async with machine.run() as server:
        await started(server, "blog")
        await server.uninstall("blog")
        await server.pass_time(1)
        await server.uninstall("mariadb")
        await server.gone("blog", "mariadb")
        assert await server.names(BINDING) == []


async def test_a_renamed_account_takes_the_old_one_away(
    machine: Simulation, mock_clock: MockClock, accounts: FakeAccounts
) -> None:
    async with machine.run() as server:
        await started(server, "blog")
        await server.change("blog", options={"database_user": "writer"})
        await server.ready("blog")
        assert accounts.log[2:] == ["revoke_user", "create_user", "verify_user"]
        assert set(accounts.users) == {"writer"}
        # The account of the same name in another database: what is revoked first is not revoked again.
        await server.change("blog", options={"database_name": "elsewhere"})
        await server.ready("blog")
        await server.pass_time(600)
        assert accounts.users["writer"].databases == {"elsewhere"}


async def test_a_service_that_is_no_longer_selected_takes_its_account_back(
    machine: Simulation, mock_clock: MockClock, accounts: FakeAccounts
) -> None:
    machine.add_image("wordpress", _without_database())
    async with machine.run() as server:
        await started(server, "blog")
        await server.change("blog", options={"database": "none"})
        await server.ready("blog")
        await server.until(lambda: _nobody(accounts))
        profile = await server.profiles.get("default", "blog")
        assert profile is not None
        assert profile.bindings == {}


async def test_a_service_that_is_no_longer_selected_takes_back_what_it_has_only_begun(
    machine: Simulation, mock_clock: MockClock, accounts: FakeAccounts
) -> None:
    machine.add_image("wordpress", _without_database())
    async with machine.run() as server:
        await begun(machine, server, "blog")
        await server.change("blog", options={"database": "none"})
        await server.ready("blog")
        await server.pass_time(600)
        assert accounts.log[0] == "create_user"
        assert accounts.users == {}
        assert await server.names(BINDING) == []


async def test_what_was_begun_with_another_password_is_not_forgotten_when_it_is_renamed(
    machine: Simulation, mock_clock: MockClock, accounts: FakeAccounts
) -> None:
    async with machine.run() as server:
        await begun(machine, server, "blog")

        async def runs_of() -> list[str]:
            return [binding["spec"]["run"] for binding in (await server.store.list(BINDING)).items]

        [first] = await runs_of()
        await server.change("blog", options={"database_password": "another"})

        async def is_asked_for_again() -> bool:
            return await runs_of() != [first]

        await server.until(is_asked_for_again)
        await server.change("blog", options={"database_user": "writer"})
        await server.ready("blog")
        await server.pass_time(600)
        assert set(accounts.users) == {"writer"}


async def test_what_was_begun_in_a_service_that_was_installed_anew_is_taken_back(
    machine: Simulation, mock_clock: MockClock, accounts: FakeAccounts
) -> None:
    machine.add_image("wordpress", _without_database())
    async with machine.run() as server:
        await started(server, "blog")
        machine.fake_binding.calls.delay("run", 60)
        before = len(machine.fake_binding.calls.log)
        await server.uninstall("mariadb")
        accounts.users.clear()  # with the data

        async def begun() -> bool:
            return len(machine.fake_binding.calls.log) > before

        await server.until(begun)
        await server.change("blog", options={"database": "none"})
        await server.ready("blog")
        await server.pass_time(600)
        assert accounts.log.count("create_user") == 2
        assert accounts.users == {}


async def test_a_service_that_was_installed_anew_runs_nothing_that_was_asked_of_the_one_before(
    machine: Simulation, mock_clock: MockClock, accounts: FakeAccounts
) -> None:
    async with machine.run() as server:
        await started(server, "blog")
        [done] = (await server.store.list(BINDING)).items
        spec = {**done["spec"], "bundle": "shop", "owned": {"2": "shop"}}
        for name, uid in {"late": "of-the-one-before", "in-time": spec["targetUid"]}.items():
            meta = {"name": name, "namespace": "default"}
            await server.store.create(BINDING, {"metadata": meta, "spec": spec | {"targetUid": uid}})
            await server.pass_time(600)
            assert len(ran(machine)) == (2 if name == "late" else 4)


@pytest.mark.parametrize("change", ["renamed", "not selected", "uninstalled"])
async def test_what_begins_in_the_moment_in_which_it_is_to_go_is_not_forgotten(
    machine: Simulation, mock_clock: MockClock, accounts: FakeAccounts, change: str
) -> None:
    machine.add_image("wordpress", _without_database())
    async with machine.run() as server:
        await started(server, "blog")
        await server.change("mariadb", start=False)
        await server.reason("mariadb", "Stopped")
        await server.change("blog", options={"database_user": "writer"})
        await server.reason("blog", "Binding")
        [waiting] = [name for name in await server.names(BINDING) if "revoke" not in name]
        machine.faults.source = plan = FaultPlan()
        plan.add(Fault(delay_seconds=60), method="transact", subject=key_of(waiting))
        if change == "uninstalled":
            await server.uninstall("blog")
        else:
            options = {"database_user": "editor"} if change == "renamed" else {"database": "none"}
            await server.change("blog", options=options)
        await server.pass_time(1)
        await server.change("mariadb", start=True)
        await server.ready("mariadb")
        await server.pass_time(600)
        assert accounts.log.count("create_user") > 1, "it has begun"
        assert set(accounts.users) == ({"editor"} if change == "renamed" else set())


async def test_a_service_that_is_selected_again_is_bound_again(
    machine: Simulation, mock_clock: MockClock, accounts: FakeAccounts
) -> None:
    machine.add_image("wordpress", _without_database())
    async with machine.run() as server:
        await started(server, "blog")
        await server.change("blog", options={"database": "none"})
        await server.until(lambda: _nobody(accounts))
        await server.ready("blog")
        await server.change("blog", options={"database": "mariadb"})
        await server.ready("blog")
        assert accounts.users["blog"].password == await password_of(server, "blog")
        assert ran(machine) == ["create_user", "verify_user", "revoke_user", "create_user", "verify_user"]


def _without_database() -> dict[str, Any]:
    """The site with a database as a matter of choice."""
    bound = SITE["database=&mariadb"]
    return {
        "database=&mariadb": bound,
        "database=none": [],
        "database_name": ["wordpress"],
        "database_user": ["wordpress"],
        "database_password": ["!rand 32 alnum"],
        "volume_1": ["/var/www/html"],
    }


async def test_a_name_that_another_bundle_owns_is_refused_by_option(
    machine: Simulation, mock_clock: MockClock, accounts: FakeAccounts
) -> None:
    async with machine.run() as server:
        await started(server, "blog")
        await server.install("wordpress", name="thief", database_name="mine", database_user="blog")
        status = await server.reason("thief", "OptionsInvalid")
        assert "spec.options.database_user: 'blog' in mariadb belongs to blog already" in status["message"]
        assert accounts.users["blog"].password == await password_of(server, "blog")
        assert accounts.users["blog"].databases == {"blog"}
        # Once the owner is gone the name is free.
        await server.uninstall("blog")
        await server.ready("thief")
        assert accounts.users["blog"].password == await password_of(server, "thief")


async def test_of_two_that_ask_for_one_name_at_once_one_gets_it(
    machine: Simulation, mock_clock: MockClock, accounts: FakeAccounts
) -> None:
    machine.fake_binding.calls.delay("run", 5)
    async with machine.run() as server:
        await server.install("mariadb")
        await server.ready("mariadb")
        for name in ("one", "two"):
            await server.install("wordpress", name=name, database_name="same", database_user="same")

        async def decided() -> bool:
            phases = {(await server.status(name)).get("phase") for name in ("one", "two")}
            return phases == {"Running", "Failed"}

        await server.until(decided)
        phases = {(await server.status(name))["phase"]: name for name in ("one", "two")}
        assert accounts.users["same"].password == await password_of(server, phases["Running"])
        assert "belongs to " + phases["Running"] in (await server.status(phases["Failed"]))["message"]
        # The loser leaves without taking anything from the winner.
        await server.uninstall(phases["Failed"])
        await server.gone(phases["Failed"])
        assert accounts.users["same"].password == await password_of(server, phases["Running"])


async def test_a_running_command_ends_before_it_is_revoked(
    machine: Simulation, mock_clock: MockClock, accounts: FakeAccounts
) -> None:
    async with machine.run() as server:
        await begun(machine, server, "blog")
        await server.uninstall("blog")
        await server.gone("blog")
        assert accounts.log[0] == "create_user"
        assert accounts.log[-1] == "revoke_user"
        assert accounts.users == {}


async def test_options_show_where_they_come_from(
    machine: Simulation, mock_clock: MockClock, accounts: FakeAccounts
) -> None:
    async with machine.run() as server:
        await started(server, "blog")
        status = await server.status("blog")
        assert status["optionSources"]["database_user"] == "given"
        assert status["optionSources"]["database_host"] == "import of mariadb"
        assert status["options"]["database_password"] == "********"


async def test_planning_refuses_a_name_that_is_taken(
    machine: Simulation, mock_clock: MockClock, accounts: FakeAccounts, tmp_path: Path
) -> None:
    async with machine.run() as server:
        await started(server, "blog")
        wanted: dict[str, Any] = {
            "metadata": {"name": "other", "namespace": "default"},
            "spec": {"service": "wordpress", "options": {"database_user": "blog", "database_name": "x"}},
        }
        with pytest.raises(InvalidError) as caught:
            await server.planner.plan(wanted, imagine=True)
        assert [problem.field for problem in caught.value.causes] == ["spec.options.database_user"]
        assert name_of(await server.store.get(BUNDLE, "default", "blog")) == "blog"
        with pytest.raises(NotFoundError):
            await server.store.get(BUNDLE, "default", "other")


async def test_access_to_a_service_that_was_to_go_along_and_stays_is_revoked_or_goes_with_its_data(
    machine: Simulation, mock_clock: MockClock, accounts: FakeAccounts
) -> None:
    """Somebody else selects the service while the bundle that brought it is being uninstalled."""
    async with machine.run() as server:
        await server.install("wordpress", name="blog", database_name="blog", database_user="blog")
        await server.ready("blog")
        before = uid_of(await server.bundle("mariadb") or {})
        machine.volume.calls.delay("delete", 60)
        await server.uninstall("blog")
        await server.pass_time(10)
        await server.install("wordpress", name="shop", database_name="shop", database_user="shop")
        await server.gone("blog")
        await server.ready("shop")
        stayed = uid_of(await server.bundle("mariadb") or {}) == before
        assert not (stayed and "blog" in accounts.users)
