"""Kill the server, the command or the container at every step of a binding's life: two hundred points and more.

The end is always one account with one password that works, recorded once; and after the removal no account at all.
"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import attrs
import pytest

from nanocloud.keyspace.keys import decode
from nanocloud.models.binding import BINDING, BindingAction
from nanocloud.models.bundle import BUNDLE
from nanocloud.providers.binding import BindingResult
from nanocloud.testkit.accounts import EXPORTS, FakeAccounts
from nanocloud.testkit.faults import NOTHING, Call, Fault, FaultPlan
from nanocloud.testkit.objects import open_store
from nanocloud.testkit.planning import MARIADB, WORDPRESS
from nanocloud.testkit.simulation import Simulation
from nanocloud.testkit.storage import FakeStorage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from trio.testing import MockClock

    from nanocloud.models.meta import Object
    from nanocloud.testkit.simulation import Server

SITE = {key: value for key, value in WORDPRESS.items() if key != "port_1"}
WITH_A_CHOICE = {key: value for key, value in SITE.items() if "env_" not in key} | {"database=none": []}
LEAST_POINTS = 200
COUNTED: dict[str, int] = {}


class Machine(Simulation):
    """One with a database that keeps accounts, installed by the user, so that it stays."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        super().__init__(folder)
        self.add_image("mariadb", MARIADB, exports=EXPORTS)
        self.add_image("wordpress", SITE)
        self.fake_binding.handler = self.accounts = FakeAccounts(when_stopped=self._stop_target)
        self.stop_target = False

    def _stop_target(self) -> None:
        if self.stop_target:
            (mariadb,) = [c for c in self.runtime.running if self.runtime.containers[c].spec.hostname == "mariadb"]
            self.runtime.exit(mariadb, 137)

    async def live(self, body: Callable[[Server], Awaitable[None]], *, crash_at: int | None = None) -> int:
        self.faults.crash_at = crash_at
        async with self.run() as server:
            await body(server)
        return self.faults.taken


@attrs.define
class DeathAtABinding:
    """A source of faults: the server dies before it writes a Binding for the ``number``-th time."""

    number: int
    seen: int = 0

    def __call__(self, call: Call) -> Fault:
        if call.method == "transact" and "/bindings/" in call.subject:
            self.seen += 1
            if self.seen == self.number:
                return Fault(crash=True)
        return NOTHING


async def begin(server: Server) -> None:
    await server.install("mariadb")
    await server.ready("mariadb")
    await server.settle()


async def install(server: Server) -> None:
    if await server.bundle("wordpress") is None:
        await server.install("wordpress")
    await server.ready("wordpress")
    await server.settle()


async def remove(server: Server) -> None:
    if found := await server.bundle("wordpress"):
        if not found["metadata"].get("deletionTimestamp"):
            await server.uninstall("wordpress")
        await server.gone("wordpress")

    async def is_revoked() -> bool:  # by a target that had ended, once it is back
        return await server.names(BINDING) == []

    await server.until(is_revoked, "nothing is left to revoke")
    await server.settle()


async def change_unseen(machine: Machine, option: str, value: str) -> None:
    """A user's last write in a life of the server in which nobody came to look at it."""

    def put(bundle: Object) -> None:
        bundle["spec"].setdefault("options", {})[option] = value

    async with open_store(FakeStorage(machine.disk)) as store:
        await store.modify(BUNDLE, "default", "wordpress", put)


async def check(machine: Machine, where: str) -> None:
    """What has to be true in the end, whatever happened before."""

    async def installed(server: Server) -> None:
        await install(server)
        await check_bound(machine, server, where)
        assert len(await server.names(BINDING)) == 1, where

    await machine.live(installed)
    await machine.live(lambda server: check_removed(machine, server, where))


async def check_bound(machine: Machine, server: Server, where: str) -> None:
    profile = await server.profiles.get("default", "wordpress")
    assert profile is not None, where
    assert set(machine.accounts.users) == {"wordpress"}, where
    assert machine.accounts.users["wordpress"].password == profile.options["database_password"].value, where
    assert machine.accounts.users["wordpress"].databases == {"wordpress"}, where
    assert [(r.command, r.result) for r in profile.bindings.values()] == [("create_user", BindingResult.COMPLETED)], (
        where
    )


async def check_removed(machine: Machine, server: Server, where: str) -> None:
    await remove(server)
    assert machine.accounts.users == {}, where
    assert await server.names(BINDING) == [], where
    assert await server.names(BUNDLE) == ["mariadb"], where


async def test_the_server_is_killed_at_every_step_of_an_installation(tmp_path: Path, mock_clock: MockClock) -> None:
    for number in itertools.count(1):
        machine = Machine(tmp_path / str(number))
        await machine.live(begin)
        if await machine.live(install, crash_at=number) < number:
            COUNTED["server, install"] = number
            break
        await check(machine, f"server killed at step {number}, {machine.faults.last}")


async def test_the_server_is_killed_at_every_step_of_a_removal(tmp_path: Path, mock_clock: MockClock) -> None:
    for number in itertools.count(1):
        machine = Machine(tmp_path / str(number))
        await machine.live(begin)
        await machine.live(install)
        if await machine.live(remove, crash_at=number) < number:
            COUNTED["server, removal"] = number
            break
        where = f"server killed at step {number}, {machine.faults.last}"
        await machine.live(lambda server: check_removed(machine, server, where))  # noqa: B023


@pytest.mark.parametrize("kind", ["command", "container"])
async def test_commands_and_containers_are_killed_at_every_step_of_a_command(
    tmp_path: Path, mock_clock: MockClock, kind: str
) -> None:
    for number in itertools.count(1):
        machine = Machine(tmp_path / str(number))
        await machine.live(begin)
        machine.accounts.stop_at, machine.stop_target = number, kind == "container"
        await machine.live(install)
        await machine.live(remove)
        if machine.accounts.steps < number:
            COUNTED[kind] = number
            break
        assert machine.accounts.users == {}, f"{kind} killed at step {number}"
        await check(machine, f"{kind} killed at step {number}")


async def test_the_server_is_killed_while_it_heals_from_a_killed_command(tmp_path: Path, mock_clock: MockClock) -> None:
    """Some steps of the whole, for each place where the command had been killed before."""
    points = 0
    for stopped in range(1, 7):
        for number in itertools.count(stopped, 4):
            machine = Machine(tmp_path / f"{stopped}-{number}")
            await machine.live(begin)
            machine.accounts.stop_at = stopped
            if await machine.live(install, crash_at=number) < number:
                break
            points += 1
            await check(machine, f"command killed at {stopped}, server at {number}, {machine.faults.last}")
    COUNTED["both"] = points


async def test_nothing_is_recorded_as_bound_that_is_being_revoked(tmp_path: Path, mock_clock: MockClock) -> None:
    """At no step of a rename: a server that dies there may find that the new name has another owner by now."""

    async def rename(server: Server) -> None:
        await server.change("wordpress", options={"database_user": "other"})
        await server.ready("wordpress")

    for number in itertools.count(1):
        machine = Machine(tmp_path / str(number))
        await machine.live(begin)
        await machine.live(install)
        if await machine.live(rename, crash_at=number) < number:
            assert number > 20, "it came to the end without that many steps"
            break
        stored = [(decode(record.key), json.loads(record.value)) for record in machine.disk.range(b"", None).records]
        (profile,) = (value for key, value in stored if key == ("profiles", "default", "wordpress"))
        revoked = [
            value["spec"]["owned"]
            for key, value in stored
            if key[2] == "bindings" and value["spec"]["action"] == BindingAction.REVOKE.value
        ]
        assert [record for record in profile.get("bindings", {}).values() if record["owned"] in revoked] == [], number


@pytest.mark.parametrize("is_recorded", [True, False], ids=["recorded", "completed"])
@pytest.mark.parametrize(
    ("option", "there", "back"), [("database_user", "other", "wordpress"), ("database", "none", "mariadb")]
)
async def test_what_is_asked_for_again_after_a_crash_is_made_again(
    tmp_path: Path, mock_clock: MockClock, option: str, there: str, back: str, *, is_recorded: bool
) -> None:
    """Killed at every write of a Binding while an option goes there; then it goes back before anybody looked."""

    async def go(server: Server) -> None:
        await server.ready("wordpress")
        await server.pass_time(60)

    for number in itertools.count(1):
        machine = Machine(tmp_path / str(number))
        machine.add_image("wordpress", WITH_A_CHOICE)
        await machine.live(begin)
        if not is_recorded:
            machine.faults.source = plan = FaultPlan()
            plan.add(Fault(crash=True), method="transact", subject="/profiles/default/wordpress", at=2)
        await machine.live(install)
        await change_unseen(machine, option, there)
        machine.faults.source = death = DeathAtABinding(number)
        await machine.live(go)
        if death.seen < number:
            assert number > 3, "it came to the end without that many writes"
            break
        await change_unseen(machine, option, back)
        async with machine.run() as server:
            await server.ready("wordpress")
            await server.pass_time(60)
            await check_bound(machine, server, f"{option}, killed at write {number}")
            await check_removed(machine, server, f"{option}, killed at write {number}")


def test_it_were_two_hundred_points() -> None:
    assert sum(COUNTED.values()) >= LEAST_POINTS, COUNTED
