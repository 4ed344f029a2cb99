"""Faults at any provider: by plan, by chance, before and after the call took effect, and crashes."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
import trio

from nanocloud.errors import ProviderError, UnavailableError
from nanocloud.macros import BuiltinMacros
from nanocloud.providers.base import Removable
from nanocloud.providers.macro import MacroContext, MacroProvider
from nanocloud.providers.network import NetworkProvider, SandboxId, SandboxNetworkSpec
from nanocloud.providers.runtime import ContainerId, ContainerSpec, ExecSpec
from nanocloud.providers.storage import RecordPut, Transaction
from nanocloud.storage import SqliteStorage
from nanocloud.testkit import FakeNetwork, FakeRuntime
from nanocloud.testkit.faults import Call, CrashedError, Fault, FaultChances, FaultPlan, Faults

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

BUSY = ProviderError("busy")
PUT = Transaction((), (RecordPut(b"a\x00b\x00", b""),))


@pytest.fixture
def plan() -> FaultPlan:
    return FaultPlan()


@pytest.fixture
def faults(plan: FaultPlan) -> Faults:
    return Faults(plan)


def sandbox(name: str) -> SandboxNetworkSpec:
    return SandboxNetworkSpec(sandbox=SandboxId(name), owner=f"default/{name}")


async def attached(network: NetworkProvider, *names: str) -> list[str]:
    """What came of attaching them one after the other."""
    outcomes = []
    for name in names:
        try:
            await network.attach(sandbox(name))
            outcomes.append("attached")
        except ProviderError as exc:
            outcomes.append(str(exc))
    return outcomes


async def test_a_rule_strikes_at_its_call_and_at_no_other(plan: FaultPlan, faults: Faults) -> None:
    fake = FakeNetwork()
    network = faults.guard(fake, "network")
    plan.add(Fault(error=BUSY), provider="network", method="attach", at=2, times=2)
    await network.list()
    assert await attached(network, "a", "b", "c", "d") == ["attached", "busy", "busy", "attached"]
    assert [network.sandbox for network in await fake.list()] == ["a", "d"]
    assert faults.last == Call(5, "network", "attach", "d")


async def test_a_rule_strikes_however_the_call_is_written(plan: FaultPlan, faults: Faults) -> None:
    network = faults.guard(FakeNetwork(), "network")
    plan.add(Fault(error=BUSY), subject="a")
    with pytest.raises(ProviderError, match="busy"):
        await network.attach(spec=sandbox("a"))


async def test_between_lives_nothing_strikes_and_nothing_is_counted(plan: FaultPlan, faults: Faults) -> None:
    network = faults.guard(FakeNetwork(), "network")
    async with faults.life():
        await network.list()
    plan.add(Fault(error=BUSY), method="attach")
    assert await attached(network, "a") == ["attached"]
    assert faults.taken == 1
    async with faults.life():
        assert await attached(network, "b") == ["busy"]
        assert faults.taken == 1


async def test_a_life_ends_in_whichever_task_the_crash_comes(plan: FaultPlan, faults: Faults) -> None:
    network = faults.guard(FakeNetwork(), "network")
    plan.add(Fault(crash=True), subject="b")
    async with faults.life(), trio.open_nursery() as nursery:
        nursery.start_soon(attached, network, "a", "b", "c")
        await trio.sleep_forever()
    assert [network.sandbox for network in await network.list()] == ["a"]


async def test_errors_of_a_life_that_is_not_over_are_told(faults: Faults) -> None:
    with pytest.raises(ValueError, match="of the test"):
        async with faults.life():
            raise ValueError("of the test")


async def test_a_call_can_take_effect_although_its_answer_is_lost(plan: FaultPlan, faults: Faults) -> None:
    fake = FakeNetwork()
    network = faults.guard(fake, "network")
    plan.add(Fault(error=BUSY, after=True), subject="a")
    assert await attached(network, "a", "b") == ["busy", "attached"]
    assert [network.sandbox for network in await fake.list()] == ["a", "b"]


async def test_a_call_can_be_made_slow(plan: FaultPlan, faults: Faults, autojump_clock: MockClock) -> None:
    network = faults.guard(FakeNetwork(), "network")
    plan.add(Fault(delay_seconds=30), method="attach")
    await attached(network, "a", "b")
    assert trio.current_time() == 30


async def test_a_real_provider_is_guarded_as_a_fake_is(tmp_path: Path, plan: FaultPlan, faults: Faults) -> None:
    async with faults.guard(SqliteStorage(tmp_path), "storage", methods=("transact",)) as storage:
        assert storage.name == "sqlite"
        plan.add(Fault(error=UnavailableError("disk full")), subject="/a/b", at=2)
        await storage.transact(PUT)
        with pytest.raises(UnavailableError, match="disk full"):
            await storage.transact(PUT)
        assert (await storage.info()).revision == 1
        assert faults.taken == 2, "reads are not counted here"


async def test_the_guarded_provider_keeps_its_contract_powers_and_what_else_it_has(faults: Faults) -> None:
    network = faults.guard(FakeNetwork(), "network")
    assert isinstance(network, NetworkProvider)
    assert isinstance(network, Removable)
    network.host_programs[80, "tcp"] = "apache2"
    macros = faults.guard(BuiltinMacros(), "macros")
    assert isinstance(macros, MacroProvider)
    assert not isinstance(macros, Removable)
    assert "rand" in macros.macros
    context = MacroContext(namespace="default", bundle="web", option="a", options={})
    assert len((await macros.expand("rand", ["8", "hex"], context)).value) == 8


async def test_a_session_is_guarded_as_a_call_is(tmp_path: Path, plan: FaultPlan, faults: Faults) -> None:
    runtime = faults.guard(FakeRuntime(), "runtime")
    web = ContainerId("web")
    await runtime.create(ContainerSpec(id=web, layers=(), argv=("web",), log_path=tmp_path / "log"))
    await runtime.start(web)
    plan.add(Fault(error=BUSY), method="exec")
    with pytest.raises(ProviderError, match="busy"):
        async with runtime.exec(web, ExecSpec(argv=("true",))):
            raise AssertionError("the session must not begin")
    async with runtime.exec(web, ExecSpec(argv=("true",))) as session:
        assert await session.wait() == 0


@pytest.mark.parametrize("after", [False, True])
async def test_after_a_crash_nothing_has_an_effect_any_more(faults: Faults, plan: FaultPlan, after: bool) -> None:
    fake = FakeNetwork()
    fake.calls.gate = faults.require_life
    network = faults.guard(fake, "network")
    lost: list[str] = []
    faults.when_dead.append(lambda: lost.append("memory"))
    plan.add(Fault(crash=True, after=after), subject="b")
    async with faults.life():
        try:
            await attached(network, "a", "b", "c")
        finally:
            with trio.CancelScope(shield=True):
                await network.detach(SandboxId("a"))
    assert [network.sandbox for network in await fake.list()] == ["a", "b"][: 1 + after]
    assert lost == ["memory"]
    async with faults.life():
        assert await attached(network, "c") == ["attached"]


async def test_a_call_that_was_under_way_when_the_server_died_has_no_effect(
    faults: Faults, autojump_clock: MockClock
) -> None:
    fake = FakeNetwork()
    fake.calls.gate = faults.require_life
    fake.calls.delay("attach", 10)
    network = faults.guard(fake, "network")

    async def late() -> None:
        with trio.CancelScope(shield=True), pytest.raises(CrashedError):
            await network.attach(sandbox("a"))

    async with trio.open_nursery() as nursery:
        async with faults.life():
            nursery.start_soon(late)
            await trio.sleep(5)
            faults.crash()
            await trio.lowlevel.checkpoint_if_cancelled()
        faults.dead = True  # nobody came back yet
    faults.end()
    assert await fake.list() == []


async def test_chances_follow_from_the_seed(autojump_clock: MockClock) -> None:
    async def outcomes(seed: int) -> tuple[list[str], float]:
        faults = Faults(FaultChances(rng=Random(seed), fail=0.3, lose=0.2, delay=0.2))
        began = trio.current_time()
        names = [f"s{number}" for number in range(100)]
        return await attached(faults.guard(FakeNetwork(), "network"), *names), round(trio.current_time() - began, 6)

    first = await outcomes(1)
    assert first == await outcomes(1)
    assert first != await outcomes(2)
    assert 30 < sum(outcome != "attached" for outcome in first[0]) < 70
    assert first[1] > 10
