"""One random story: users and watchers meet a server that dies, on a machine where things go wrong; then all is quiet.

Everything follows from the seed. ``tell`` runs one and says which promises were broken.
"""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import attrs
import structlog
import trio

from nanocloud import errors
from nanocloud.identity.authority import CertificateAuthority
from nanocloud.models.binding import BINDING
from nanocloud.models.bundle import BUNDLE
from nanocloud.models.core import CONFIG_MAP
from nanocloud.models.pod import POD
from nanocloud.testkit.api import ApiClient
from nanocloud.testkit.simulation.history import History
from nanocloud.testkit.simulation.invariants import PROMISES, Scene, addresses_and_ports_are_given_once
from nanocloud.testkit.simulation.machine import Simulation
from nanocloud.testkit.simulation.mayhem import Mayhem, end_some_container
from nanocloud.testkit.simulation.scheduling import generator, run_seeded
from nanocloud.testkit.simulation.services import stock
from nanocloud.testkit.simulation.trace import Trace
from nanocloud.testkit.simulation.users import BUNDLES, Actor, BundleUser, Counter, Meddler, keep_acting
from nanocloud.testkit.simulation.watching import Follower

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from nanocloud.testkit.faults import Call, Fault
    from nanocloud.testkit.simulation.server import Server

_LIVES, _BUNDLES = (1, 1, 2, 2, 3), (1, 2, 2, 3, 3, 4)
_LONGEST_LIFE_SECONDS = 90.0
_LONGEST_DOWNTIME_SECONDS = 60.0
_PATIENCE_SECONDS = 3600.0
_REST_SECONDS = 60.0


@attrs.frozen
class Broken:
    """A promise that was not kept."""

    promise: str
    how: str


@attrs.frozen
class Told:
    """How a story went."""

    seed: int
    broken: tuple[Broken, ...]
    trace: Trace
    writes: int
    events: int
    seconds: float
    """Of virtual time."""


def replay_command(seed: int) -> str:
    """What a person types to see a story again."""
    return f"make simulate SEED={seed}"


def tell(seed: int, *, echo: Callable[[str], None] | None = None) -> Told:
    """Run the story of a seed. ``echo`` is told of each line of its trace."""
    with tempfile.TemporaryDirectory(prefix="nanocloud-simulation-", dir=_memory()) as folder:
        return run_seeded(Story(seed, Path(folder), echo).run, seed)


class Story:
    def __init__(self, seed: int, folder: Path, echo: Callable[[str], None] | None) -> None:
        self.seed = seed
        self.broken: list[Broken] = []
        self.trace = Trace(echo)
        self._rng = generator(seed, "story")
        self.machine = machine = Simulation(folder, rng=generator(seed, "names"), authority=_authority())
        machine.keep_revisions = self._rng.choice((30, 100, 10_000))
        machine.storage_steps = None
        machine.sync_seconds = self._rng.choice((0.0, 0.004, 0.1))
        self.databases = stock(machine)
        self.history = History(self.databases, self.trace.add, self.complain)
        machine.disk.observers.append(self.history)
        self.mayhem = Mayhem(machine, self.databases, generator(seed, "mayhem"), self.trace)
        machine.faults.source = self.mayhem
        machine.faults.watchers.append(self._see)
        names = sorted(self._rng.sample(sorted(BUNDLES), self._rng.choice(_BUNDLES)))
        self.users = [BundleUser(name, self._of(name), self.trace) for name in names]
        self.counters = [Counter(name, self._of(name), self.trace) for name in ("one", "two")]
        kinds = (BUNDLE, POD, BINDING, CONFIG_MAP)
        self.followers = [Follower(kind, self._of(kind.plural), self._watch_broken) for kind in kinds]

    def _of(self, whom: str) -> Random:
        return generator(self.seed, whom)

    def complain(self, promise: str, how: str) -> None:
        self.broken.append(Broken(promise, how))
        self.trace.add(f"BROKEN {promise}: {how}")

    def _watch_broken(self, how: str) -> None:
        self.complain("watches_are_whole_and_in_order", how)

    def _see(self, call: Call, _: Fault) -> None:
        if call.provider != "storage" or call.method == "compact":
            self.trace.add(f"{call.provider} {call.method} {call.subject}".rstrip())
        if call.provider == "network":
            for problem in addresses_and_ports_are_given_once(self.machine.network):
                self.complain("addresses_and_ports_are_given_once", problem)

    async def run(self) -> Told:
        processors = structlog.get_config()["processors"]
        structlog.configure(processors=[self._hear])
        try:
            for _ in range(self._rng.choice(_LIVES)):
                await self._live()
                await self._be_down()
            await self._end()
        finally:
            structlog.configure(processors=processors)
        events = sum(follower.events for follower in self.followers)
        return Told(self.seed, tuple(self.broken), self.trace, self.history.writes, events, trio.current_time())

    def _hear(self, _: Any, level: str, entry: MutableMapping[str, Any]) -> Any:
        """Failures that were foreseen are NanocloudErrors; any other exception in a worker is a bug."""
        event, error = entry["event"], entry.get("exc_info") or entry.get("error")
        if level in ("warning", "error", "exception"):
            self.trace.add(f"log: {event}")
        surprising = event in ("pod worker failed", "request failed", "worker returned") or (
            event in ("worker crashed", "reconcile failed") and not _is_foreseen(error)
        )
        if surprising:
            self.complain(
                "no_worker_is_surprised", f"{event}: {entry.get('worker') or entry.get('queue') or ''} {error!r}"
            )
        raise structlog.DropEvent

    # ---- the wild part -----------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        self.trace.add("the server starts")
        async with self.machine.run() as server:
            api = ApiClient.over(server.store)
            with trio.move_on_after(self._rng.uniform(20, _LONGEST_LIFE_SECONDS)):
                async with trio.open_nursery() as nursery:
                    actors: tuple[Actor, ...] = (*self.users, *self.counters, Meddler(self._of("meddler"), self.trace))
                    for actor in actors:
                        nursery.start_soon(keep_acting, actor, api, self._rng)
                    for follower in self.followers:
                        nursery.start_soon(follower.follow, api)
                    nursery.start_soon(self.mayhem.rage, server)
        self.machine.faults.crash_at = None
        self.trace.add("the server is gone")

    async def _be_down(self) -> None:
        await trio.sleep(self._rng.uniform(0, _LONGEST_DOWNTIME_SECONDS))
        if self._rng.random() < 0.3:
            end_some_container(self.machine, self._rng, self.trace)
        if self._rng.random() < 0.2:
            self.trace.add("the machine reboots")
            self.machine.reboot()

    # ---- the quiet part ----------------------------------------------------------------------------------------------

    async def _end(self) -> None:
        self.mayhem.calm = True
        self.databases.kill_after(None)
        self.trace.add("all is quiet")
        async with self.machine.run() as server:
            api = ApiClient.over(server.store)
            scene = await self._settled(server)
            for promise in PROMISES:
                for problem in promise(scene):
                    self.complain(promise.__name__, problem)
            for follower in self.followers:
                await follower.catch_up(api)
            await self._rest(scene)

    async def _rest(self, scene: Scene) -> None:
        """Where every bundle runs, or is stopped as asked, nobody has anything to write."""
        if any(bundle["status"]["phase"] not in ("Running", "Stopped") for bundle in scene.bundles.values()):
            return
        before = self.machine.disk.revision
        await trio.sleep(_REST_SECONDS)
        if written := self.machine.disk.revision - before:
            self.complain("a_settled_node_rests", f"{written} writes in {_REST_SECONDS:g} s")

    async def _settled(self, server: Server) -> Scene:
        """Once every promise is kept, or when nobody has patience any more."""
        pause, began = 5.0, trio.current_time()
        while True:
            await trio.sleep(pause)
            scene = await Scene.look(self.machine, server, self.databases, self.users, self.counters)
            is_kept = not any(True for promise in PROMISES for _ in promise(scene))
            if is_kept or trio.current_time() - began > _PATIENCE_SECONDS:
                return scene
            pause *= 2


def _is_foreseen(error: object) -> bool:
    if isinstance(error, BaseException):
        return isinstance(error, errors.NanocloudError)
    return str(error).partition("(")[0] in _names_of(errors.NanocloudError)


def _names_of(kind: type) -> set[str]:
    return {kind.__name__}.union(*map(_names_of, kind.__subclasses__()))


@cache
def _memory() -> str | None:
    """Where files cost nothing, if there is such a place."""
    folder = Path("/dev/shm")  # noqa: S108 - the folder in it is made with a name of its own
    return str(folder) if folder.is_dir() and os.access(folder, os.W_OK) else None


@cache
def _authority() -> CertificateAuthority:
    """One for all stories: making keys takes time, and nothing depends on them."""
    return CertificateAuthority.create()
