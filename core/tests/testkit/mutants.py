"""Fakes with one bug each, and the sentences of their contracts that the bug breaks.

Run by ``test_mutants.py``, under the plugin: every class here must fail at the sentences in ``breaks``, and nowhere
else.
"""

from __future__ import annotations

import copy
import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import pytest
import trio
from subjects import BindingSubject, ImageSubject, NetworkSubject, RuntimeSubject, StorageSubject, VolumeSubject

from nanocloud.errors import AlreadyExistsError, ImageError, InvalidError, NotFoundError, ProviderError
from nanocloud.providers.binding import BindingResult
from nanocloud.providers.macro import MacroProvider, MacroValue
from nanocloud.providers.runtime import ContainerState, ExitStatus
from nanocloud.providers.storage import RecordPut
from nanocloud.providers.volume import VolumeId
from nanocloud.testkit import FakeBinding, FakeDisk, FakeImages, FakeNetwork, FakeRuntime, FakeStorage, FakeVolume
from nanocloud.testkit.calls import now
from nanocloud.testkit.suites import MacroProviderSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence, Set
    from ipaddress import IPv4Address
    from pathlib import Path

    from nanocloud.providers.binding import BindingCall, BindingOutcome
    from nanocloud.providers.image import Digest, Image, PullProgress, UnpackedImage
    from nanocloud.providers.macro import MacroContext
    from nanocloud.providers.network import PortMapping, SandboxId, SandboxNetwork, SandboxNetworkSpec
    from nanocloud.providers.runtime import ContainerId, ContainerSpec, ContainerStatus
    from nanocloud.providers.storage import ChangePage, Committed, Record, RecordPage, Rejected, Transaction
    from nanocloud.providers.volume import VolumeSpec, VolumeStatus

CANCELLED = (
    "A cancelled call leaves nothing behind, or something that calling it again, ``list`` and ``remove`` put right; "
    "the provider stays usable."
)

# ---- storage ---------------------------------------------------------------------------------------------------------


class LosesAWrite(FakeStorage):
    """Of transactions that share a sync, the second is acknowledged and not done."""

    def _commit(self, group: Sequence[Any]) -> None:
        lost = [request for request in group[1:2] if not request.transaction.checks]
        super()._commit([request for request in group if request not in lost])
        for request in lost:
            request.outcome = group[0].outcome


class TestLosesAWrite(StorageSubject):
    fake = LosesAWrite
    breaks = (
        "What ``transact`` returned survives a crash of the process and of the machine.",
        "Numbers are never reused, also not after a crash.",
        "One that is refused changes nothing and disturbs no other.",
        "The page is complete up to this revision: reading goes on with ``after=through``.",
        "Transactions go on meanwhile.",
    )


class LosesAnUpdate(FakeStorage):
    """Of transactions that share a sync, all are checked before the first is done."""

    def _commit(self, group: Sequence[Any]) -> None:
        newest = {key: self.disk.get(key, None) for r in group for key in (c.key for c in r.transaction.checks)}
        for request in group:
            revisions = {key: record.mod_revision if record else 0 for key, record in newest.items()}
            if all(revisions[check.key] == check.mod_revision for check in request.transaction.checks):
                request.transaction = attrs.evolve(request.transaction, checks=())
        super()._commit(group)


class TestLosesAnUpdate(StorageSubject):
    fake = LosesAnUpdate
    breaks = (
        "Concurrent transactions have an order, the order of their revisions, and each one's checks are made against "
        "the state that all earlier ones left.",
        "All methods are safe to call concurrently from one trio thread.",
    )


class LazyDisk(FakeDisk):
    """Has on it, after a crash, what it had at every seventh transaction."""

    def __init__(self) -> None:
        super().__init__()
        self._applied, self._synced = 0, dict[str, Any]()

    def apply(self, transaction: Transaction) -> Committed | Rejected:
        if self._applied % 7 == 0:
            self._synced = copy.deepcopy({k: v for k, v in vars(self).items() if k not in ("_synced", "_holder")})
        self._applied += 1
        return super().apply(transaction)

    def crash(self, *, survivors: int = 0) -> None:
        crashes = self.crashes
        vars(self).update(copy.deepcopy(self._synced))
        self.crashes = crashes
        super().crash(survivors=survivors)


class TestAnswersBeforeItIsDurable(StorageSubject):
    fake_disk = LazyDisk
    breaks = (
        "What ``transact`` returned survives a crash of the process and of the machine.",
        "Numbers are never reused, also not after a crash.",
        "CompactedError: ``after`` lies before the compacted revision: some changes are forgotten.",
    )


class RepeatsARevision(FakeStorage):
    """Takes up counting, when it is opened, after the newest record that exists."""

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with super().lifespan():
            records = (await self.range(b"", None)).records
            self.disk._revision = max((record.mod_revision for record in records), default=0)
            yield


class TestRepeatsARevision(StorageSubject):
    fake = RepeatsARevision
    breaks = ("Numbers are never reused, also not after a crash.",)


class ListsByKey(FakeStorage):
    """Lists what expires in the order of keys."""

    async def expiring(self, *, limit: int) -> Sequence[Record]:
        return sorted(await super().expiring(limit=limit), key=lambda record: record.key)


class TestListsByKey(StorageSubject):
    fake = ListsByKey
    breaks = ("The ``limit`` existing records that expire first, soonest first; records without expiry never.",)


class CutsATransaction(FakeStorage):
    """Ends a page of changes wherever the limit is."""

    async def changes(self, start: bytes, end: bytes | None, *, after: int, limit: int) -> ChangePage:
        page = await super().changes(start, end, after=after, limit=limit)
        if len(page.changes) <= limit:
            return page
        return attrs.evolve(page, changes=page.changes[:limit], through=page.changes[limit - 1].revision)


class TestCutsATransaction(StorageSubject):
    fake = CutsATransaction
    breaks = (
        "A page holds whole transactions (as far as they touch the range) and ends after about ``limit`` changes, or "
        "earlier if they are large; it is empty only if nothing changed up to ``through``, which is then the store's "
        "last revision.",
    )


class TearsARange(FakeStorage):
    """Reads a range in two halves."""

    async def range(
        self, start: bytes, end: bytes | None, *, limit: int | None = None, revision: int | None = None
    ) -> RecordPage:
        first = await super().range(start, end, limit=limit, revision=revision)
        if revision is not None or len(first.records) < 100:
            return first
        await trio.sleep(0.02)
        second = await super().range(start, end, limit=limit)
        return attrs.evolve(first, records=first.records[:50] + second.records[50:])


class TestTearsARange(StorageSubject):
    fake = TearsARange
    breaks = ("The records with ``start <= key < end`` (``end`` None: no upper bound), all from one state.",)


class LimitsBeforeItLooks(FakeStorage):
    """Takes the lowest keys that there ever were, and then looks which exist."""

    async def range(
        self, start: bytes, end: bytes | None, *, limit: int | None = None, revision: int | None = None
    ) -> RecordPage:
        page = await super().range(start, end, revision=revision)
        keys = list(self.disk._between(start, end))[:limit]
        return attrs.evolve(
            page,
            records=tuple(record for record in page.records if record.key in keys),
            more=any(record.key not in keys for record in page.records),
        )


class TestLimitsBeforeItLooks(StorageSubject):
    fake = LimitsBeforeItLooks
    breaks = ("At most ``limit``, which is 1 or more, from the lowest key on; None: all of them.",)


class SkipsWhatComesMeanwhile(FakeStorage):
    """Reads changes first, and then how far they reach."""

    async def changes(self, start: bytes, end: bytes | None, *, after: int, limit: int) -> ChangePage:
        page = await super().changes(start, end, after=after, limit=limit)
        if page.through < self.disk.revision:
            return page
        await trio.sleep(0.02)
        return attrs.evolve(page, through=self.disk.revision)


class TestSkipsWhatComesMeanwhile(StorageSubject):
    fake = SkipsWhatComesMeanwhile
    breaks = ("The page is complete up to this revision: reading goes on with ``after=through``.",)


class ForgetsThatItCompacted(FakeStorage):
    """When it is opened again."""

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with super().lifespan():
            self.disk._compacted = 0
            yield


class TestForgetsThatItCompacted(StorageSubject):
    fake = ForgetsThatItCompacted
    breaks = ("CompactedError: ``after`` lies before the compacted revision: some changes are forgotten.",)


class RoundsTheExpiry(FakeStorage):
    """To a whole second."""

    async def transact(self, transaction: Transaction) -> Committed | Rejected:
        puts = (
            attrs.evolve(operation, expires_at=float(int(operation.expires_at)))
            if isinstance(operation, RecordPut) and operation.expires_at is not None
            else operation
            for operation in transaction.operations
        )
        return await super().transact(attrs.evolve(transaction, operations=tuple(puts)))


class TestRoundsTheExpiry(StorageSubject):
    fake = RoundsTheExpiry
    breaks = (
        "``expires_at`` is stored and given back with the value it was written with; a storage never removes a record "
        "by itself.",
        "Each transaction that changes something takes the next number, once; all its changes carry that number.",
    )


# ---- runtime ---------------------------------------------------------------------------------------------------------


class LeaksAContainer(FakeRuntime):
    """A create that is cancelled at its end leaves the container."""

    async def create(self, spec: ContainerSpec) -> None:
        await super().create(spec)
        await trio.lowlevel.checkpoint()


class TestLeaksAContainer(RuntimeSubject):
    fake = LeaksAContainer
    breaks = ("Undoes itself on failure or cancellation.",)


class IgnoresCancellation(FakeRuntime):
    async def stop(self, container: ContainerId, *, grace_seconds: float) -> ExitStatus:
        with trio.CancelScope(shield=True):
            return await super().stop(container, grace_seconds=grace_seconds)


class TestIgnoresCancellation(RuntimeSubject):
    fake = IgnoresCancellation
    breaks = (CANCELLED,)


class ForgetsTheExitCode(FakeRuntime):
    """Of containers that ended while it was away."""

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        for container in self.containers.values():
            if container.state is ContainerState.EXITED and container.exit is not None:
                container.exit = attrs.evolve(container.exit, code=255)
        yield


class TestForgetsTheExitCode(RuntimeSubject):
    fake = ForgetsTheExitCode
    breaks = (
        "Containers outlive the server: after a crash a new provider over the same folders lists them with the same "
        "pids, and knows the exit code of those that ended meanwhile.",
    )


class StopDoesNotWait(FakeRuntime):
    """The container ends a little after ``stop`` has returned."""

    async def stop(self, container: ContainerId, *, grace_seconds: float) -> ExitStatus:
        found = self._known(container)
        before = found.exit
        ended = await super().stop(container, grace_seconds=grace_seconds)
        if before is None:
            found.exit, found.ended = None, trio.Event()
            found.program = attrs.evolve(found.program, exit_code=ended.code)
            found.ends_at = now() + 0.001
            return attrs.evolve(ended, finished_at=found.ends_at)
        return ended


class TestStopDoesNotWait(RuntimeSubject):
    fake = StopDoesNotWait
    breaks = ("It has ended when this returns.",)


class BeginsTheLogAnew(FakeRuntime):
    async def create(self, spec: ContainerSpec) -> None:
        is_new = spec.id not in self.containers
        await super().create(spec)
        if is_new:
            spec.log_path.write_bytes(b"")


class TestBeginsTheLogAnew(RuntimeSubject):
    fake = BeginsTheLogAnew
    breaks = (
        "The container's standard output and error are appended to ``ContainerSpec.log_path`` in the CRI log format "
        "(``<RFC 3339 nanoseconds> stdout|stderr F|P <text>``) without the server's help.",
    )


class LeavesWhoWaits(FakeRuntime):
    """Removing a container tells nobody who waits for its end."""

    async def remove(self, container: ContainerId) -> None:
        if (found := self.containers.get(container)) is not None and found.exit is None:
            found.ended = trio.Event()
        await super().remove(container)


class TestLeavesWhoWaits(RuntimeSubject):
    fake = LeavesWhoWaits
    breaks = ("Wait until the container ends; at once if it has.",)


class ForgetsBeforeItRemoves(FakeRuntime):
    """A remove that is cancelled leaves a container that nobody lists and whose id is taken."""

    async def remove(self, container: ContainerId) -> None:
        found = self.containers.pop(container, None)
        if found is not None:
            self._half_removed.add(container)
            await trio.lowlevel.checkpoint()
            self._half_removed.remove(container)
            self.containers[container] = found
        await super().remove(container)

    async def create(self, spec: ContainerSpec) -> None:
        if spec.id in self._half_removed:
            raise AlreadyExistsError(f"container {spec.id} exists already")
        await super().create(spec)

    def __init__(self, **play: Any) -> None:
        super().__init__(**play)
        self._half_removed: set[ContainerId] = set()


class TestForgetsBeforeItRemoves(RuntimeSubject):
    fake = ForgetsBeforeItRemoves
    breaks = (CANCELLED,)


class StopsHalfWay(FakeRuntime):
    """A start that is cancelled leaves a container that can neither be started nor has ended."""

    async def start(self, container: ContainerId) -> ContainerStatus:
        found = self._known(container)
        if found.started_at is None and container in self._begun:
            raise ProviderError(f"container {container} is being started")
        self._begun.add(container)
        await trio.lowlevel.checkpoint()
        self._begun.remove(container)
        return await super().start(container)

    def __init__(self, **play: Any) -> None:
        super().__init__(**play)
        self._begun: set[ContainerId] = set()


class TestStopsHalfWay(RuntimeSubject):
    fake = StopsHalfWay
    breaks = (CANCELLED,)


class WritesLabelsAsLines(FakeRuntime):
    """``name=value``, a line each."""

    async def create(self, spec: ContainerSpec) -> None:
        lines = "\n".join(f"{name}={value}" for name, value in spec.labels.items()).splitlines()
        labels = dict(line.partition("=")[::2] for line in lines)
        await super().create(attrs.evolve(spec, labels=labels))


class TestWritesLabelsAsLines(RuntimeSubject):
    fake = WritesLabelsAsLines
    breaks = ("Kept by the runtime and given back by ``list``; the kubelet finds its pods again by them.",)


# ---- network ---------------------------------------------------------------------------------------------------------


class GivesOneAddressTwice(FakeNetwork):
    """To the fourth sandbox that of the first."""

    def _address_for(self, owner: str) -> IPv4Address:
        if len(self._attached) < 3:
            return super()._address_for(owner)
        return self._reserved[next(iter(self._attached.values())).owner]


class TestGivesOneAddressTwice(NetworkSubject):
    fake = GivesOneAddressTwice
    breaks = ("No address is given to two sandboxes.",)


class ForgetsAnAddress(FakeNetwork):
    """Detaching frees the owner's address."""

    async def detach(self, sandbox: SandboxId) -> None:
        network = self._attached.get(sandbox)
        await super().detach(sandbox)
        if network is not None:
            self._reserved.pop(network.owner, None)


class TestForgetsAnAddress(NetworkSubject):
    fake = ForgetsAnAddress
    breaks = (
        "Remove the namespace, the link, the rules; keep the owner's address reserved.",
        "Addresses are sticky: an ``owner`` gets the same address again while nobody else needs it, so names keep "
        "their meaning over restarts.",
    )


class KeepsThePortOfACancelledAttach(FakeNetwork):
    async def attach(self, spec: SandboxNetworkSpec) -> SandboxNetwork:
        if spec.sandbox in self._attached:
            return await super().attach(spec)
        for port in spec.ports:
            self._check_free(port, spec.sandbox)
        taken = {(port.host_port, port.protocol): spec.sandbox for port in spec.ports}
        self.host_programs.update(taken)
        await trio.lowlevel.checkpoint()
        for port in taken:
            del self.host_programs[port]
        return await super().attach(spec)


class TestKeepsThePortOfACancelledAttach(NetworkSubject):
    fake = KeepsThePortOfACancelledAttach
    breaks = (CANCELLED,)


class LooksForPortsTooEarly(FakeNetwork):
    """Looks whether a host port is free, does its work, and takes it."""

    async def attach(self, spec: SandboxNetworkSpec) -> SandboxNetwork:
        for port in spec.ports if spec.sandbox not in self._attached else ():
            super()._check_free(port, spec.sandbox)
        return await super().attach(spec)

    def _check_free(self, port: PortMapping, sandbox: SandboxId) -> None:
        pass


class TestLooksForPortsTooEarly(NetworkSubject):
    fake = LooksForPortsTooEarly
    breaks = (
        "PortInUseError: a host port is held by another sandbox or by a program of the host; names port and holder.",
    )


class KeepsPortsByAddress(FakeNetwork):
    """Two host addresses never meet, whatever they are."""

    def _check_free(self, port: PortMapping, sandbox: SandboxId) -> None:
        held = {other.host_ip for network in self._attached.values() for other in network.ports}
        if port.host_ip in held or not held:
            super()._check_free(port, sandbox)


class TestKeepsPortsByAddress(NetworkSubject):
    fake = KeepsPortsByAddress
    breaks = ("None: every address of the node, loopback too.",)


class RemembersAddressesInMemory(FakeNetwork):
    """Only what is attached is in its records."""

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        owners = {network.owner for network in self._attached.values()}
        for owner in set(self._reserved) - owners:
            del self._reserved[owner]
        yield


class TestRemembersAddressesInMemory(NetworkSubject):
    fake = RemembersAddressesInMemory
    breaks = (
        "Addresses are sticky: an ``owner`` gets the same address again while nobody else needs it, so names keep "
        "their meaning over restarts.",
    )


class ForgetsBeforeItDetaches(FakeNetwork):
    """The record goes first; a detach that is cancelled then finds nothing to be done any more."""

    async def detach(self, sandbox: SandboxId) -> None:
        network = self._attached.get(sandbox)
        await super().detach(sandbox)
        held = {(port.host_port, port.protocol): sandbox for port in network.ports} if network else {}
        self.host_programs.update(held)
        await trio.lowlevel.checkpoint()
        for port in held:
            del self.host_programs[port]


class TestForgetsBeforeItDetaches(NetworkSubject):
    fake = ForgetsBeforeItDetaches
    breaks = (CANCELLED,)


class NamesLinksByTheirBeginning(FakeNetwork):
    """As if 15 characters, all that a network device may have, told every sandbox from every other."""

    async def attach(self, spec: SandboxNetworkSpec) -> SandboxNetwork:
        if any(len(other) > 15 and other[:15] == spec.sandbox[:15] != other for other in self._attached):
            raise ProviderError(f"sandbox {spec.sandbox}: its device exists")
        return await super().attach(spec)


class TestNamesLinksByTheirBeginning(NetworkSubject):
    fake = NamesLinksByTheirBeginning
    breaks = ("``[a-z0-9][a-z0-9.-]{0,62}``; one pod sandbox.",)


# ---- volumes ---------------------------------------------------------------------------------------------------------


class LosesDataOnSecondPublish(FakeVolume):
    async def publish(self, volume: VolumeId, *, consumer: str) -> Path:
        path = await super().publish(volume, consumer=consumer)
        if self._known(volume).consumers == {consumer}:
            shutil.rmtree(path)
            path.mkdir()
        return path


class TestLosesDataOnSecondPublish(VolumeSubject):
    fake = LosesDataOnSecondPublish
    breaks = ("A fresh volume is empty; what was written is there again.", "Calls for one volume may overlap.")


class DropsEveryConsumer(FakeVolume):
    async def unpublish(self, volume: VolumeId, *, consumer: str) -> None:
        await super().unpublish(volume, consumer=consumer)
        self._known(volume).consumers.clear()


class TestDropsEveryConsumer(VolumeSubject):
    fake = DropsEveryConsumer
    breaks = (
        "Drop the consumer; without consumers the volume is unmounted. Unknown consumers are no error.",
        "Calls for one volume may overlap.",
    )


class ReadsItsRecordTooEarly(FakeVolume):
    """Who else uses a volume is read before the mount, and written after it."""

    async def publish(self, volume: VolumeId, *, consumer: str) -> Path:
        before = set(self._known(volume).consumers)
        path = await super().publish(volume, consumer=consumer)
        self._known(volume).consumers = before | {consumer}
        return path


class TestReadsItsRecordTooEarly(VolumeSubject):
    fake = ReadsItsRecordTooEarly
    breaks = ("Calls for one volume may overlap.",)


class ShortensIds(FakeVolume):
    """To 64 letters, for a label that holds no more."""

    async def create(self, spec: VolumeSpec) -> VolumeStatus:
        return await super().create(attrs.evolve(spec, id=_shortened(spec.id)))

    async def publish(self, volume: VolumeId, *, consumer: str) -> Path:
        return await super().publish(_shortened(volume), consumer=consumer)

    async def unpublish(self, volume: VolumeId, *, consumer: str) -> None:
        await super().unpublish(_shortened(volume), consumer=consumer)


def _shortened(volume: VolumeId) -> VolumeId:
    return VolumeId(volume[:64]) if len(volume) <= 128 else volume


class TestShortensIds(VolumeSubject):
    fake = ShortensIds
    breaks = ("``[a-z0-9][a-z0-9.-]{0,127}``; unique on the node, chosen by the caller.",)


class ForgetsBeforeItUnmounts(FakeVolume):
    """The consumer is dropped first; an unpublish that is cancelled then leaves the mount to nobody."""

    async def unpublish(self, volume: VolumeId, *, consumer: str) -> None:
        consumers = self._known(volume).consumers
        if consumer in consumers:
            consumers.remove(consumer)
            consumers.add("nobody")
            await trio.lowlevel.checkpoint()
            consumers.remove("nobody")
        await super().unpublish(volume, consumer=consumer)


class TestForgetsBeforeItUnmounts(VolumeSubject):
    fake = ForgetsBeforeItUnmounts
    breaks = (CANCELLED,)


# ---- images ----------------------------------------------------------------------------------------------------------


class ServesAnUnverifiedLayer(FakeImages):
    def _verify(self, digest: Digest, what: str) -> None:
        if not what.startswith("layer"):
            super()._verify(digest, what)


class TestServesAnUnverifiedLayer(ImageSubject):
    fake = ServesAnUnverifiedLayer
    breaks = ("ImageError: digest, size or diff_id is wrong, or a layer breaks a rule; names the layer and the entry.",)


class CollectsWhatIsNew(FakeImages):
    async def collect(self, in_use: Set[Digest], *, idle_seconds: float = 0.0) -> Sequence[Digest]:
        return await super().collect(in_use)


class TestCollectsWhatIsNew(ImageSubject):
    fake = CollectsWhatIsNew
    breaks = (
        "Images that were resolved, ensured or looked up less than ``idle_seconds`` ago stay: a plan may hold one that "
        "is not stored yet.",
    )


class KeepsItsIndexInMemory(FakeImages):
    """What was unpacked is unpacked again by the next server."""

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self._here.clear()
        yield


class TestKeepsItsIndexInMemory(ImageSubject):
    fake = KeepsItsIndexInMemory
    breaks = ("The image with that manifest digest, without any network, if all of it is here.",)


class FailsWithTheFirst(FakeImages):
    """Whoever comes later waits for the first, who may have given up."""

    def __init__(self) -> None:
        super().__init__()
        self._under_way: dict[Digest, trio.Event] = {}

    async def ensure(self, image: Image, *, progress: PullProgress | None = None) -> UnpackedImage:
        if (first := self._under_way.get(image.digest)) is not None:
            await first.wait()
            if image.digest not in self._here:
                raise ImageError(f"{image.reference} was not unpacked")
            return self._here[image.digest]
        self._under_way[image.digest] = trio.Event()
        try:
            await trio.sleep(0.01)
            return await super().ensure(image, progress=progress)
        finally:
            self._under_way.pop(image.digest).set()


class TestFailsWithTheFirst(ImageSubject):
    fake = FailsWithTheFirst
    breaks = ("Concurrent calls for one layer share the work.",)


# ---- bindings --------------------------------------------------------------------------------------------------------


class RunsBeyondItsTime(FakeBinding):
    async def run(self, call: BindingCall) -> BindingOutcome:
        outcome = await super().run(call)
        if outcome.result is BindingResult.TIMEOUT:
            await trio.sleep(1000)
        return outcome


class TestRunsBeyondItsTime(BindingSubject):
    fake = RunsBeyondItsTime
    breaks = (
        "No run outlasts the time limit, which is the provider's own, at most 900 seconds; a command that would is "
        "killed.",
    )


class RunsTwice(FakeBinding):
    """A command that failed is run again."""

    async def run(self, call: BindingCall) -> BindingOutcome:
        outcome = await super().run(call)
        return await super().run(call) if outcome.result is BindingResult.FAILED else outcome


class TestRunsTwice(BindingSubject):
    fake = RunsTwice
    breaks = ("Run the command once and report.",)


class ShowsASecret(FakeBinding):
    async def run(self, call: BindingCall) -> BindingOutcome:
        words = " ".join(argument.value for argument in call.arguments)
        return attrs.evolve(await super().run(call), output=f"{call.command} {words}")


class TestShowsASecret(BindingSubject):
    fake = ShowsASecret
    breaks = ("Standard output and error together, clipped to 1 MiB, with every secret argument masked.",)


class RaisesForWhatIsGone(FakeBinding):
    """It knows of containers that have ended, and not of those that are gone."""

    async def run(self, call: BindingCall) -> BindingOutcome:
        if call.container not in {status.id for status in await call.runtime.list()}:
            raise NotFoundError(f"container {call.container} does not exist")
        return await super().run(call)


class TestRaisesForWhatIsGone(BindingSubject):
    fake = RaisesForWhatIsGone
    breaks = ("A container that does not run is a failure of the command.",)


# ---- macros ----------------------------------------------------------------------------------------------------------


class Password(MacroProvider):
    """``!password LENGTH``, without a bug."""

    @property
    def name(self) -> str:
        return "password"

    @property
    def macros(self) -> Sequence[str]:
        return ("password",)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        yield

    async def expand(self, macro: str, arguments: Sequence[str], context: MacroContext) -> MacroValue:
        if len(arguments) != 1 or arguments[0] not in ("1", "2", "3"):
            raise InvalidError(f"!password {' '.join(arguments)} is not !password 1|2|3")
        return MacroValue(value="s3cret" * int(arguments[0]), secret=True)


class PasswordSubject(MacroProviderSuite):
    fake: ClassVar[type[Password]] = Password
    examples = ("password 1", "password 3")
    mistakes = ("password", "password 1 2", "password x")

    @pytest.fixture
    def make_provider(self) -> Callable[[], Password]:
        return self.fake


class TestPassword(PasswordSubject):
    breaks = ()


@attrs.frozen(kw_only=True)
class OpenValue(MacroValue):
    def __repr__(self) -> str:
        return f"OpenValue({self.value!r})"


class ShowsItsValue(Password):
    async def expand(self, macro: str, arguments: Sequence[str], context: MacroContext) -> MacroValue:
        return OpenValue(value=(await super().expand(macro, arguments, context)).value, secret=True)


class TestShowsItsValue(PasswordSubject):
    fake = ShowsItsValue
    breaks = ("True: encrypted in the profile, masked in status, events and logs.",)


class TakesWhatItIsGiven(Password):
    """Checks the number of its arguments, and no more."""

    async def expand(self, macro: str, arguments: Sequence[str], context: MacroContext) -> MacroValue:
        if len(arguments) != 1:
            return await super().expand(macro, arguments, context)
        return MacroValue(value="s3cret" * int(arguments[0]), secret=True)


class TestTakesWhatItIsGiven(PasswordSubject):
    fake = TakesWhatItIsGiven
    breaks = (
        "InvalidError: wrong arguments; the message shows the macro as written and what is allowed.",
        "A label is untrusted: whatever the arguments are, the answer is a value or an error of ``nanocloud.errors``.",
    )
