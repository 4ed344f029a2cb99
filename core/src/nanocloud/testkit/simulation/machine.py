"""The control plane on fakes: controllers, kubelet, claims and bindings over a real keyspace, in virtual time.

A ``Simulation`` is the machine: its fakes and its disk stay while servers come and go. ``run`` is one life of the
server. With a plain ``MockClock`` the clock moves only inside ``Server.until``, and only when nothing is left to do, so
a test decides what happens in which order; nothing sleeps, and no thread runs. ``faults`` decides what goes wrong at
which call. A crash ends a life as SIGKILL would: everything stops, and no clean-up code changes anything any more.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from nanocloud import macros
from nanocloud.ambient import Surroundings, living_in, surroundings, wall_clock
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
from nanocloud.keyspace.keyspace import KEEP_REVISIONS
from nanocloud.kubelet.addresses import AddressesWorker
from nanocloud.kubelet.bindings import BindingsWorker
from nanocloud.kubelet.claims import ClaimsWorker
from nanocloud.kubelet.kubelet import Kubelet
from nanocloud.kubelet.parts import KubeletParts
from nanocloud.models.builtin import builtin_registry
from nanocloud.objects import EventRecorder, NamespaceController, ObjectStore
from nanocloud.planning.expander import expander
from nanocloud.planning.workload import READY_COMMAND
from nanocloud.providers.image import Image, ImageConfig
from nanocloud.secrets import Envelope
from nanocloud.testkit.binding import FakeBinding
from nanocloud.testkit.calls import now
from nanocloud.testkit.disk import FakeDisk
from nanocloud.testkit.faults import CrashedError, Faults
from nanocloud.testkit.images import FakeImages
from nanocloud.testkit.network import FakeNetwork
from nanocloud.testkit.objects import NODE_KEY
from nanocloud.testkit.planning import MARIADB, MARIADB_EXPORTS, WORDPRESS, Settings, labels_of
from nanocloud.testkit.runtime import FakeRuntime
from nanocloud.testkit.simulation.server import Server
from nanocloud.testkit.storage import FakeStorage
from nanocloud.testkit.volume import FakeVolume
from nanocloud.workers import keep_running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection
    from pathlib import Path
    from random import Random

    from nanocloud.extension import Controller
    from nanocloud.providers.binding import BindingProvider
    from nanocloud.providers.image import ImageProvider
    from nanocloud.providers.network import NetworkProvider
    from nanocloud.providers.runtime import RuntimeProvider
    from nanocloud.providers.storage import StorageProvider
    from nanocloud.providers.volume import VolumeProvider

KEEP_IMAGES_SECONDS = 600.0


@attrs.define(kw_only=True)
class Providers:
    """What the simulated node stands on: the machine's fakes, unless a test puts a provider of its own there."""

    storage: Callable[[], StorageProvider]
    """Makes one for each life of the server."""
    images: ImageProvider
    network: NetworkProvider
    runtime: RuntimeProvider
    volume: VolumeProvider
    binding: BindingProvider


class Simulation:
    """One machine with wordpress and mariadb in its catalogue."""

    keep_revisions = KEEP_REVISIONS
    """Of the keyspace, before it compacts."""
    sync_seconds = 0.0
    """How long the disk takes for a commit."""
    storage_steps: Collection[str] | None = ("transact",)
    """Methods of the storage that ``faults`` counts; None: all."""

    def __init__(
        self, folder: Path, *, rng: Random | None = None, authority: CertificateAuthority | None = None
    ) -> None:
        """``rng`` makes uids and names; without one they differ in every run."""
        self.folder, self._rng = folder, rng
        self.clock_offset_seconds = 0.0
        """How far the server's wall clock is from the fakes'; a test may set it at any time."""
        self.faults, self.disk = Faults(), FakeDisk()
        self.faults.end()  # no server lives yet
        self.faults.when_dead.append(self.disk.crash)
        self.images, self.network = FakeImages(), FakeNetwork()
        self.runtime, self.volume = FakeRuntime(), FakeVolume(folder / "volumes")
        self.fake_binding = FakeBinding()
        for fake in (self.images, self.network, self.runtime, self.volume, self.fake_binding):
            fake.calls.gate = self.faults.require_life
        self.providers = Providers(
            storage=lambda: FakeStorage(self.disk, sync_seconds=self.sync_seconds),
            images=self.images,
            network=self.network,
            runtime=self.runtime,
            volume=self.volume,
            binding=self.fake_binding,
        )
        self.authority = authority or CertificateAuthority.create()
        self.add_image("mariadb", MARIADB, exports=MARIADB_EXPORTS)
        self.add_image("wordpress", WORDPRESS)

    def add_image(
        self, name: str, settings: Settings, *, exports: Settings | None = None, ready_script: bool = True
    ) -> Image:
        """Add a service to the catalogue; ``ready_script`` says whether its image holds one for the kubelet to run."""
        layer = self.folder / "layers" / name
        script = layer / READY_COMMAND.lstrip("/")
        script.parent.mkdir(parents=True, exist_ok=True)
        if ready_script:
            script.touch()
        else:
            script.unlink(missing_ok=True)
        config = ImageConfig(entrypoint=(f"/usr/sbin/{name}",), labels=labels_of(settings, exports))
        return self.images.add(name, config, layers=(layer,))

    def reboot(self) -> None:
        """What the machine's restart does while no server runs: volumes and addresses stay, all that ran is gone."""
        self.runtime.reboot()
        self.network.reboot()
        self.volume.reboot()

    def wall_clock(self) -> float:
        return now() + self.clock_offset_seconds

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Server]:
        """One life of the server, until the body ends or ``faults`` has it crash: then the body is cancelled."""
        place = Surroundings(self.wall_clock, self._rng or surroundings().rng, threads=False)
        try:
            with living_in(place):
                async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
                    server = await self._open(stack, nursery)
                    self.faults.begin(nursery.cancel_scope)
                    yield server
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            error = first_error(group)
            if not isinstance(error, CrashedError):
                raise error from None
        except CrashedError:
            pass
        finally:
            self.faults.end()

    async def _open(self, stack: AsyncExitStack, nursery: trio.Nursery) -> Server:
        """Build the node as ``node.open_node`` does, from this machine's providers, and start its workers."""
        guard, given = self.faults.guard, self.providers
        images = ImageSources([await stack.enter_async_context(guard(given.images, "images"))])
        runtime = await stack.enter_async_context(guard(given.runtime, "runtime"))
        network = await stack.enter_async_context(guard(given.network, "network"))
        volume = await stack.enter_async_context(guard(given.volume, "volume"))
        binding = await stack.enter_async_context(guard(given.binding, "binding"))
        storage = guard(given.storage(), "storage", methods=self.storage_steps)
        await stack.enter_async_context(storage)
        keyspace = await stack.enter_async_context(Keyspace.open(storage, keep=self.keep_revisions))
        envelope = Envelope(NODE_KEY)
        store = ObjectStore(keyspace, builtin_registry(), seal=envelope.seal, unseal=envelope.unseal)
        await store.ensure_namespaces()
        events, profiles = EventRecorder(store), ProfileStore(keyspace, envelope)
        parts = ControllerParts(
            store=store,
            events=events,
            profiles=profiles,
            planner=Planner(store=store, profiles=profiles, images=images, expand=expander([macros.BuiltinMacros()])),
            uninstaller=Uninstaller(store=store, profiles=profiles, events=events, binding_provider=binding.name),
            authority=self.authority,
            envelope=envelope,
            binding_provider=binding.name,
        )
        kubelet = KubeletParts(
            store=store,
            events=events,
            images=images,
            runtime=runtime,
            network=network,
            volume=volume,
            binding=binding,
            logs=self.folder / "logs",
            clock=wall_clock,
        )
        workers: tuple[Controller, ...] = (
            BundleController(parts),
            NamespaceController(store),
            Kubelet(kubelet),
            ClaimsWorker(kubelet),
            AddressesWorker(kubelet),
            BindingsWorker(kubelet),
            ImageCollector(
                store=store, profiles=profiles, images=images, runtime=runtime, keep_seconds=KEEP_IMAGES_SECONDS
            ),
        )
        for worker in workers:
            nursery.start_soon(keep_running, worker)
        return Server(store=store, profiles=profiles, planner=parts.planner, kubelet=kubelet)
