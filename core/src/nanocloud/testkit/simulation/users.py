"""Random users: each owns some objects, writes them through the API, and keeps account of what it was answered.

A bundle has one user, who installs it, changes options, stops, starts, restarts and uninstalls it. Plain objects have
users who count in them. Nosy users delete pods that are not theirs.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import trio

from nanocloud.client.api import ApiError
from nanocloud.controllers.uninstall import INSTALLED_FOR
from nanocloud.models.bundle import BUNDLE, RESTARTED_AT
from nanocloud.models.core import CONFIG_MAP
from nanocloud.models.meta import annotations_of, is_deleting, name_of
from nanocloud.models.pod import POD
from nanocloud.testkit.simulation.ledger import Ledger
from nanocloud.testkit.simulation.services import SERVICES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from nanocloud.models.meta import Object
    from nanocloud.testkit.api import ApiClient
    from nanocloud.testkit.simulation.trace import Trace

_LONGEST_PAUSE_SECONDS, _SHORT_PAUSE_SECONDS, _IMPATIENCE = 25.0, 0.5, 0.3
_UNSURE = 500
"""HTTP codes from here on leave open whether the write happened."""

BUNDLES = {
    "mariadb": "mariadb",
    "postgres": "postgres",
    "cache": "cache",
    "blog": "site",
    "news": "site",
    "shop": "shop",
    "front": "front",
    "side": "front",
}
"""Name to service; what a service selects is installed under the service's own name."""


@attrs.frozen(kw_only=True)
class BundleState:
    """What a bundle's user decides."""

    options: tuple[tuple[str, str], ...] = ()
    start: bool = True
    force: str = ""
    restarted: str = ""

    @classmethod
    def of(cls, bundle: Object) -> BundleState:
        spec = bundle["spec"]
        return cls(
            options=tuple(sorted((spec.get("options") or {}).items())),
            start=spec.get("start", True),
            force=spec.get("forceBindings") or "",
            restarted=annotations_of(bundle).get(RESTARTED_AT, ""),
        )

    @property
    def body(self) -> dict[str, Any]:
        """As a merge patch, or with a service as the whole object."""
        spec: dict[str, Any] = {"options": dict(self.options), "start": self.start}
        if self.force:
            spec["forceBindings"] = self.force
        meta: dict[str, Any] = {"annotations": {RESTARTED_AT: self.restarted}} if self.restarted else {}
        return {"metadata": meta, "spec": spec}


class Actor(Protocol):
    async def act(self, api: ApiClient) -> None:
        """Take one random step."""


class BundleUser:
    """The only one who changes the bundle ``name``; controllers may install and remove it as another's dependency."""

    def __init__(self, name: str, rng: Random, trace: Trace) -> None:
        self.name, self.service = name, BUNDLES[name]
        self.ledger = Ledger[BundleState]()
        self._rng, self._trace = rng, trace
        self._counted = 0

    async def act(self, api: ApiClient) -> None:
        """One random step; every answer of the server is a good one, but none may be forgotten."""
        found = await _read(api, self.name)
        if found is None:
            await self._install(api)
        elif is_deleting(found) or INSTALLED_FOR in annotations_of(found):
            return  # waits until it is gone; or it belongs to whoever selected it
        elif self._rng.random() < 0.15:
            await self._uninstall(api)
        else:
            await self._change(api, BundleState.of(found))

    async def _install(self, api: ApiClient) -> None:
        state = BundleState(options=self._options({}), start=self._rng.random() < 0.9)
        body = state.body
        body["metadata"]["name"] = self.name
        body["spec"]["service"] = self.service
        with self._writing(state, "install"):
            await api.create(BUNDLE, body)

    async def _uninstall(self, api: ApiClient) -> None:
        with self._writing(None, "uninstall"):
            await api.delete(BUNDLE, self.name)

    async def _change(self, api: ApiClient, before: BundleState) -> None:
        self._counted += 1
        match self._rng.randrange(5):
            case 0 | 1:
                after = attrs.evolve(before, options=self._options(dict(before.options)))
            case 2:
                after = attrs.evolve(before, start=not before.start)
            case 3:
                after = attrs.evolve(before, restarted=f"{self.name}-{self._counted}")
            case _:
                after = attrs.evolve(before, force=str(self._counted))
        with self._writing(after, "change"):
            await api.patch(BUNDLE, self.name, after.body)

    def _options(self, options: dict[str, str]) -> tuple[tuple[str, str], ...]:
        choices = SERVICES[self.service].choices
        for option in sorted(choices):
            if self._rng.random() < 0.3:
                options[option] = self._rng.choice(choices[option])
        return tuple(sorted(options.items()))

    @contextmanager
    def _writing(self, state: BundleState | None, what: str) -> Iterator[None]:
        with accounted(self.ledger, state, self._trace, f"{self.name}: {what} {state or ''}".rstrip()):
            yield


class Counter:
    """The only one who writes the ConfigMap ``name``: a number that grows, now and then deleted."""

    def __init__(self, name: str, rng: Random, trace: Trace) -> None:
        self.name = name
        self.ledger = Ledger[str]()
        self._rng, self._trace = rng, trace
        self._count = 0

    async def act(self, api: ApiClient) -> None:
        self._count += 1
        value = str(self._count)
        try:
            found: Object | None = await api.get(CONFIG_MAP, self.name)
        except ApiError as exc:
            if exc.code >= _UNSURE:
                return
            found = None
        obj = {"metadata": {"name": self.name}, "data": {"count": value}}
        if found is None:
            with self._writing(value, "create"):
                await api.create(CONFIG_MAP, obj)
        elif self._rng.random() < 0.2:
            with self._writing(None, "delete"):
                await api.delete(CONFIG_MAP, self.name)
        elif self._rng.random() < 0.5:
            obj["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
            with self._writing(value, "put"):
                await api.update(CONFIG_MAP, obj)
        else:
            with self._writing(value, "patch"):
                await api.patch(CONFIG_MAP, self.name, {"data": {"count": value}})

    @contextmanager
    def _writing(self, state: str | None, what: str) -> Iterator[None]:
        with accounted(self.ledger, state, self._trace, f"{self.name}: {what} {state or ''}".rstrip()):
            yield


class Meddler:
    """Deletes a pod, as no user should and every user can."""

    def __init__(self, rng: Random, trace: Trace) -> None:
        self._rng, self._trace = rng, trace

    async def act(self, api: ApiClient) -> None:
        try:
            pods = (await api.list(POD)).items
            if pods and self._rng.random() < 0.3:
                name = name_of(self._rng.choice(pods))
                self._trace.add(f"meddler: delete pod {name}")
                await api.delete(POD, name)
        except ApiError as exc:
            self._trace.add(f"meddler: {exc.code}")


async def keep_acting(actor: Actor, api: ApiClient, rng: Random) -> None:
    while True:
        is_impatient = rng.random() < _IMPATIENCE
        await trio.sleep(rng.uniform(0, _SHORT_PAUSE_SECONDS if is_impatient else _LONGEST_PAUSE_SECONDS))
        await actor.act(api)


@contextmanager
def accounted(ledger: Ledger[Any], state: Any, trace: Trace, what: str) -> Iterator[None]:
    """A write to ``state`` in the body. A body that is cancelled, as by the server's death, leaves it doubtful."""
    ledger.tried(state)
    try:
        yield
    except ApiError as exc:
        trace.add(f"{what}: {exc.code}")
        if exc.code < _UNSURE:
            ledger.refused()
    except BaseException:
        trace.add(f"{what}: never answered")
        raise
    else:
        trace.add(f"{what}: done")
        ledger.answered()


async def _read(api: ApiClient, name: str) -> Object | None:
    try:
        return await api.get(BUNDLE, name)
    except ApiError as exc:
        if exc.code == 404:
            return None
        return {"metadata": {"deletionTimestamp": "unknown"}}
