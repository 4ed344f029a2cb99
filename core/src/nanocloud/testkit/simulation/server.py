"""One life of the server, as a test sees it: what users do, what there is, and waiting for it in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import trio
import trio.testing

from nanocloud.models.bundle import BUNDLE, RESTARTED_AT
from nanocloud.models.core import EVENT
from nanocloud.models.meta import condition_is_true, name_of
from nanocloud.models.pod import POD

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nanocloud.controllers.planner import Planner
    from nanocloud.controllers.profiles import ProfileStore
    from nanocloud.kubelet.parts import KubeletParts
    from nanocloud.models.kinds import ResourceKind
    from nanocloud.models.meta import Object
    from nanocloud.objects import ObjectStore

PATIENCE_SECONDS = 3600.0
"""Of virtual time: what has not come about by then never will."""


@attrs.frozen(kw_only=True)
class Server:
    """Made by ``Simulation.run``."""

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
        await trio.testing.wait_all_tasks_blocked()

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

    async def _shown(self) -> str:
        told = []
        for bundle in (await self.store.list(BUNDLE)).items:
            status = bundle.get("status") or {}
            told.append(" ".join([name_of(bundle), *(status.get(f, "-") for f in ("phase", "reason", "message"))]))
        return "; ".join(told) or "there is no bundle"


def _event_key(event: Object) -> tuple[str, ...]:
    return ("registry", "core", "events", event["metadata"]["namespace"], name_of(event))
