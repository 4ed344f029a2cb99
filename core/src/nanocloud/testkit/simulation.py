"""The control plane on fakes: controllers, kubelet, claims and bindings over a real keyspace, in virtual time.

A ``Simulation`` is the machine: its fakes and its folder stay while servers come and go. ``run`` is one life of the
server. The clock moves only inside ``Server.until``, and only when nothing is left to do, so a test decides what
happens in which order; nothing sleeps. ``crash_at`` ends a life as SIGKILL would: at the n-th step that could change
the world (a call of a provider, or a write) everything stops, and no clean-up code changes anything any more.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import trio
import trio.testing

from nanocloud import macros
from nanocloud.concurrency import first_error
from nanocloud.controllers.bundles import BundleController
from nanocloud.controllers.image_collection import ImageCollector
from nanocloud.controllers.parts import ControllerParts
from nanocloud.controllers.planner import Planner
from nanocloud.controllers.profiles import ProfileStore
from nanocloud.controllers.uninstall import Uninstaller
from nanocloud.identity.authority import CertificateAuthority
from nanocloud.images import ImageSources
from nanocloud.keyspace import Keyspace
from nanocloud.kubelet.bindings import BindingsWorker
from nanocloud.kubelet.claims import ClaimsWorker
from nanocloud.kubelet.kubelet import Kubelet
from nanocloud.kubelet.parts import KubeletParts
from nanocloud.models.builtin import builtin_registry
from nanocloud.models.bundle import BUNDLE, RESTARTED_AT
from nanocloud.models.core import EVENT
from nanocloud.models.meta import condition_is_true, name_of
from nanocloud.models.pod import POD
from nanocloud.objects import EventRecorder, ObjectStore
from nanocloud.planning.expander import expander
from nanocloud.planning.workload import READY_COMMAND
from nanocloud.providers.image import Image, ImageConfig
from nanocloud.secrets import Envelope
from nanocloud.storage import SqliteStorage
from nanocloud.testkit.binding import FakeBinding
from nanocloud.testkit.calls import Calls, now
from nanocloud.testkit.images import FakeImages
from nanocloud.testkit.network import FakeNetwork
from nanocloud.testkit.objects import NODE_KEY
from nanocloud.testkit.planning import MARIADB, MARIADB_EXPORTS, WORDPRESS, Settings, labels_of
from nanocloud.testkit.runtime import FakeRuntime
from nanocloud.testkit.volume import FakeVolume
from nanocloud.workers import keep_running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from nanocloud.extension import Controller
    from nanocloud.models.kinds import ResourceKind
    from nanocloud.models.meta import Object
    from nanocloud.providers.binding import BindingProvider
    from nanocloud.providers.storage import Committed, Rejected, Transaction

PATIENCE_SECONDS = 3600.0
"""Of virtual time: what has not come about by then never will."""
KEEP_IMAGES_SECONDS = 600.0


class CrashedError(BaseException):
    """The server is dead; nothing it still tries has any effect."""


class Called(Protocol):
    calls: Calls


@attrs.define
class Steps:
    """Counts what could change the world, and crashes at the step that a test chose."""

    taken: int = 0
    crash_at: int | None = None
    dead: bool = False
    last: tuple[str, ...] = ()
    """What the step was that was taken last."""
    _scope: trio.CancelScope | None = None

    def begin(self, scope: trio.CancelScope) -> None:
        """From now on steps are counted; a crash cancels ``scope``."""
        self.taken, self._scope = 0, scope

    def take(self, *what: str) -> None:
        if self.dead:
            raise CrashedError
        self.taken += 1
        self.last = what
        if self._scope is not None and self.taken == self.crash_at:
            self.dead = True
            self._scope.cancel()
            raise CrashedError

    def end(self) -> None:
        self.dead, self._scope = False, None


class _CountedCalls(Calls):
    def __init__(self, provider: str, steps: Steps) -> None:
        super().__init__()
        self._provider, self._steps = provider, steps

    async def enter(self, method: str, subject: str) -> None:
        self._steps.take(self._provider, method, subject)
        await super().enter(method, subject)
        if self._steps.dead:
            raise CrashedError


class _CountedStorage(SqliteStorage):
    def __init__(self, folder: Path, steps: Steps) -> None:
        super().__init__(folder)
        self._steps = steps
        self.pending = 0

    async def transact(self, transaction: Transaction) -> Committed | Rejected:
        self._steps.take("storage", "transact", " ".join(repr(operation.key) for operation in transaction.operations))
        self.pending += 1
        try:
            return await super().transact(transaction)
        finally:
            self.pending -= 1

    @property
    def is_busy(self) -> bool:
        """Whether a thread of the storage is at work, which trio knows nothing about."""
        return bool(self.pending or self._threads.borrowed_tokens)


class Simulation:
    """One machine with wordpress and mariadb in its catalog."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.steps = Steps()
        self.images, self.network = FakeImages(), FakeNetwork()
        self.runtime, self.volume = FakeRuntime(), FakeVolume(folder / "volumes")
        self.fake_binding = FakeBinding()
        self.binding: BindingProvider = self.fake_binding
        fakes: dict[str, Called] = {
            "images": self.images,
            "network": self.network,
            "runtime": self.runtime,
            "volume": self.volume,
            "binding": self.fake_binding,
        }
        for name, fake in fakes.items():
            fake.calls = _CountedCalls(name, self.steps)
        self.authority = CertificateAuthority.create()
        self.add_image("mariadb", MARIADB, exports=MARIADB_EXPORTS)
        self.add_image("wordpress", WORDPRESS)

    def add_image(
        self, name: str, settings: Settings, *, exports: Settings | None = None, ready_script: bool = True
    ) -> Image:
        """Add a service to the catalog; ``ready_script`` says whether its image holds one for the kubelet to run."""
        layer = self.folder / "layers" / name
        script = layer / READY_COMMAND.lstrip("/")
        script.parent.mkdir(parents=True, exist_ok=True)
        if ready_script:
            script.touch()
        else:
            script.unlink(missing_ok=True)
        config = ImageConfig(entrypoint=(f"/usr/sbin/{name}",), labels=labels_of(settings, exports))
        return self.images.add(name, config, layers=(layer,))

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Server]:
        """One life of the server, until the body ends or ``crash_at`` is reached: then the body is cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                storage = _CountedStorage(self.folder / "keyspace", self.steps)
                async with storage, self.volume, Keyspace.open(storage, clock=now) as keyspace:
                    server = await self._start(storage, keyspace, nursery)
                    self.steps.begin(nursery.cancel_scope)
                    yield server
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            error = first_error(group)
            if not isinstance(error, CrashedError):
                raise error from None
        finally:
            self.steps.end()

    async def _start(self, storage: _CountedStorage, keyspace: Keyspace, nursery: trio.Nursery) -> Server:
        envelope = Envelope(NODE_KEY)
        store = ObjectStore(keyspace, builtin_registry(), seal=envelope.seal, unseal=envelope.unseal)
        await store.ensure_namespaces()
        events, profiles = EventRecorder(store), ProfileStore(keyspace, envelope)
        images = ImageSources([self.images])
        parts = ControllerParts(
            store=store,
            events=events,
            profiles=profiles,
            planner=Planner(store=store, profiles=profiles, images=images, expand=expander([macros.BuiltinMacros()])),
            uninstaller=Uninstaller(store=store, profiles=profiles, events=events, binding_provider=self.binding.name),
            authority=self.authority,
            envelope=envelope,
            binding_provider=self.binding.name,
        )
        kubelet = KubeletParts(
            store=store,
            events=events,
            images=images,
            runtime=self.runtime,
            network=self.network,
            volume=self.volume,
            binding=self.binding,
            logs=self.folder / "logs",
            clock=now,
        )
        server = Server(storage=storage, store=store, profiles=profiles, planner=parts.planner, kubelet=kubelet)
        workers: Sequence[Controller] = (
            BundleController(parts),
            Kubelet(kubelet),
            ClaimsWorker(kubelet),
            BindingsWorker(kubelet),
            ImageCollector(
                store=store, profiles=profiles, images=images, runtime=self.runtime, keep_seconds=KEEP_IMAGES_SECONDS
            ),
        )
        for worker in workers:
            nursery.start_soon(keep_running, worker)
        return server


@attrs.frozen(kw_only=True)
class Server:
    """One life of the server, as a test sees it: objects, and waiting for them."""

    storage: _CountedStorage = attrs.field(repr=False)
    store: ObjectStore = attrs.field(repr=False)
    profiles: ProfileStore = attrs.field(repr=False)
    planner: Planner = attrs.field(repr=False)
    kubelet: KubeletParts = attrs.field(repr=False)

    # ---- what a user does --------------------------------------------------------------------------------------------

    async def install(self, service: str, *, name: str = "", namespace: str = "default", **options: str) -> Object:
        bundle = {
            "metadata": {"name": name or service, "namespace": namespace},
            "spec": {"service": service, "options": options},
        }
        return await self.store.create(BUNDLE, bundle)

    async def change(self, bundle: str, **spec: Any) -> None:
        """Write fields of the spec; options are merged into those that are there."""

        def put(found: Object) -> None:
            options = found["spec"].get("options", {}) | spec.pop("options", {})
            found["spec"] |= {**spec, "options": options}

        await self.store.modify(BUNDLE, "default", bundle, put)

    async def restart(self, bundle: str, mark: str) -> None:
        def put(found: Object) -> None:
            found["metadata"].setdefault("annotations", {})[RESTARTED_AT] = mark

        await self.store.modify(BUNDLE, "default", bundle, put)

    async def uninstall(self, bundle: str) -> None:
        await self.store.delete(BUNDLE, "default", bundle)

    # ---- what there is -----------------------------------------------------------------------------------------------

    async def bundle(self, name: str) -> Object | None:
        return await self.store.find(BUNDLE, "default", name)

    async def status(self, name: str) -> dict[str, Any]:
        """Empty where there is no such bundle."""
        return ((await self.bundle(name)) or {}).get("status") or {}

    async def pod(self, bundle: str) -> Object | None:
        return await self.store.find(POD, "default", f"{bundle}-0")

    async def container(self, bundle: str) -> dict[str, Any]:
        """Status of the bundle's container; empty where there is none."""
        pod = await self.pod(bundle) or {}
        return ((pod.get("status") or {}).get("containerStatuses") or [{}])[0]  # type: ignore[no-any-return]

    async def names(self, kind: ResourceKind) -> list[str]:
        return [name_of(obj) for obj in (await self.store.list(kind)).items]

    async def reasons(self, about: str) -> list[str]:
        """Reasons of the Events about an object, in the order in which they were first written."""
        events = (await self.store.list(EVENT)).items
        mine = [event for event in events if event["involvedObject"]["name"] == about]
        entries = {name_of(event): await self.store.keyspace.get(_event_key(event)) for event in mine}
        mine.sort(key=lambda event: entries[name_of(event)].create_revision)  # type: ignore[union-attr]
        return [event["reason"] for event in mine]

    # ---- waiting -----------------------------------------------------------------------------------------------------

    async def until(
        self, holds: Callable[[], Awaitable[object]], what: str = "", *, seconds: float = PATIENCE_SECONDS
    ) -> None:
        """Let virtual time pass until ``holds``; AssertionError where it does not come about."""
        limit = trio.current_time() + seconds
        while not await holds():
            await self.settle()
            if await holds():
                return
            if trio.current_time() >= limit:
                raise AssertionError(f"not within {seconds:g} s: {what or holds}; {await self._shown()}")
            await self._one_step(limit)

    async def settle(self) -> None:
        """Until everything waits for time to pass, or for the test."""
        while True:
            await trio.testing.wait_all_tasks_blocked()
            if not self._is_busy():
                return
            await trio.testing.wait_all_tasks_blocked(0.0005)

    async def pass_time(self, seconds: float) -> None:
        limit = trio.current_time() + seconds
        while trio.current_time() < limit:
            await self._one_step(limit)
        await self.settle()

    async def ready(self, *bundles: str) -> None:
        for name in bundles:
            await self.until(lambda name=name: self._is_ready(name), f"{name} is ready")  # type: ignore[misc]

    async def reason(self, bundle: str, reason: str) -> dict[str, Any]:
        """Wait until the bundle's status has that reason, and return the status."""

        async def holds() -> bool:
            return (await self.status(bundle)).get("reason") == reason

        await self.until(holds, f"{bundle} says {reason}")
        return await self.status(bundle)

    async def failure(self, bundle: str, reason: str) -> str:
        """The message of the failure, once the bundle says that it failed for this reason."""

        async def failed() -> bool:
            status = await self.status(bundle)
            return (status.get("phase"), status.get("reason")) == ("Failed", reason)

        await self.until(failed, f"{bundle} failed by {reason}")
        return str((await self.status(bundle))["message"])

    async def gone(self, *bundles: str) -> None:
        for name in bundles:

            async def holds(name: str = name) -> bool:
                return await self.bundle(name) is None

            await self.until(holds, f"{name} is gone")

    async def _is_ready(self, name: str) -> bool:
        bundle = await self.bundle(name)
        generation = (bundle or {}).get("metadata", {}).get("generation")
        status = (bundle or {}).get("status") or {}
        return bundle is not None and condition_is_true(bundle, "Ready") and status["observedGeneration"] == generation

    async def _one_step(self, limit: float) -> None:
        """What can happen now, happens; else the clock goes to the next moment for which someone waits."""
        await self.settle()
        left = min(trio.lowlevel.current_statistics().seconds_to_next_deadline, limit - trio.current_time())
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock), "ask for the fixture mock_clock"
        if left > 0:
            clock.jump(left)
        await self.settle()

    def _is_busy(self) -> bool:
        threads = trio.to_thread.current_default_thread_limiter().borrowed_tokens
        return bool(threads) or self.storage.is_busy

    async def _shown(self) -> str:
        told = []
        for bundle in (await self.store.list(BUNDLE)).items:
            status = bundle.get("status") or {}
            told.append(" ".join([name_of(bundle), *(status.get(f, "-") for f in ("phase", "reason", "message"))]))
        return "; ".join(told) or "there is no bundle"


def _event_key(event: Object) -> tuple[str, ...]:
    return ("registry", "core", "events", event["metadata"]["namespace"], name_of(event))
