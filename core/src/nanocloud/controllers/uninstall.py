"""Taking a bundle down: its pod, services that only it needed, its access to the others, what it was made of.

Every step looks at what is left, so it goes on after a crash where it stood. The bundle object goes last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from nanocloud.controllers import children, revocations
from nanocloud.controllers.revocations import Made
from nanocloud.models.binding import BINDING
from nanocloud.models.bundle import ADDRESS_FINALIZER, BUNDLE, UNINSTALL_FINALIZER, BundlePhase
from nanocloud.models.core import PERSISTENT_VOLUME_CLAIM, SECRET
from nanocloud.models.meta import annotations_of, is_deleting, name_of, namespace_of, uid_of
from nanocloud.objects import Grouping

if TYPE_CHECKING:
    from nanocloud.controllers.profiles import ProfileStore
    from nanocloud.models.kinds import ResourceKind
    from nanocloud.models.meta import Object
    from nanocloud.objects import EventRecorder, ObjectStore

INSTALLED_FOR = "nanocloud.io/installed-for"
"""Annotation of a bundle that was installed because this one selected it; it goes when nobody selects it any more."""
KEEP_SERVICES = "nanocloud.io/keep-services"
"""Annotation: uninstalling leaves the services that were installed for this bundle."""
_BY_INSTALLED_FOR = Grouping(
    BUNDLE, lambda bundle: [v for k, v in annotations_of(bundle).items() if k == INSTALLED_FOR]
)
_BY_OPTION = Grouping(BUNDLE, lambda bundle: set((bundle["spec"].get("options") or {}).values()))


@attrs.frozen(kw_only=True)
class Uninstaller:
    store: ObjectStore
    profiles: ProfileStore
    events: EventRecorder
    binding_provider: str
    has_kubelet: bool = True
    """False where no pod can run: then nobody else gives back what a bundle does not have."""

    async def remove(self, bundle: Object) -> set[str]:
        """Do what can be done now; what has to wait comes back with the next change of a child.

        Returns:
            Bundles whose change has to bring the caller back, too.
        """
        if UNINSTALL_FINALIZER not in (bundle["metadata"].get("finalizers") or ()):
            return set()  # all is done here; somebody else holds it
        await self._say_terminating(bundle)
        if not await children.remove_pod(self.store, bundle):
            return set()
        # First of all, and for good: access to what goes along is not revoked, so it must not stay for somebody else.
        for service in await self._leaving(bundle):
            await self.store.delete(BUNDLE, namespace_of(bundle), name_of(service), uid=uid_of(service))
        await self._begin_revoking(bundle)
        await self._delete_all(SECRET, bundle)
        volumes_are_gone = await self._delete_all(PERSISTENT_VOLUME_CLAIM, bundle)
        if targets := await revocations.awaited(self.store, bundle):
            return targets
        if not volumes_are_gone:
            return set()
        await self._tell_of_debts(bundle)
        await self.profiles.remove(namespace_of(bundle), name_of(bundle))

        def release(found: Object) -> None:
            done = {UNINSTALL_FINALIZER} if self.has_kubelet else {UNINSTALL_FINALIZER, ADDRESS_FINALIZER}
            found["metadata"]["finalizers"] = [f for f in found["metadata"].get("finalizers") or [] if f not in done]

        await self.store.modify(BUNDLE, namespace_of(bundle), name_of(bundle), release)
        return set()

    async def _begin_revoking(self, bundle: Object) -> None:
        """Pass what bindings made, or may have made, on to the targets; those that go need not know."""
        namespace, name = namespace_of(bundle), name_of(bundle)
        profile = await self.profiles.get(namespace, name)
        if profile is not None:
            for step, record in profile.bindings.items():
                if record.revocable:
                    made = Made.of_record(step, record)
                    await revocations.ensure_revocation(self.store, bundle, made, self.binding_provider)
            await self.profiles.put(namespace, name, profile.forget(*profile.bindings))
        for binding in await children.children(self.store, BINDING, bundle):
            if binding["spec"]["bundle"] == name:
                await revocations.withdraw(self.store, bundle, binding, self.binding_provider)
        await self._delete_all(BINDING, bundle)  # what it was to revoke itself

    async def _tell_of_debts(self, bundle: Object) -> None:
        """Of access that could not be taken away yet; the targets go on trying."""
        for binding in await revocations.outstanding(self.store, bundle):
            spec = binding["spec"]
            access = f"access of {name_of(bundle)} to {spec['target']}"
            message = f"{access} is not revoked yet; it is tried until it succeeds"
            target = await self.store.find(BUNDLE, namespace_of(bundle), spec["target"])
            await self.events.record(target or bundle, reason="BindingNotRevoked", message=message, type="Warning")

    async def _say_terminating(self, bundle: Object) -> None:
        def put(found: Object) -> None:
            found.setdefault("status", {})["phase"] = BundlePhase.TERMINATING.value

        await self.store.modify(BUNDLE, namespace_of(bundle), name_of(bundle), put, subresource="status")

    async def _delete_all(self, kind: ResourceKind, bundle: Object) -> bool:
        """True once none of the kind is left."""
        found = await children.children(self.store, kind, bundle)
        for obj in found:
            if not is_deleting(obj):
                await self.store.delete(kind, namespace_of(obj), name_of(obj), uid=uid_of(obj))
        return not await children.children(self.store, kind, bundle)

    async def _leaving(self, bundle: Object) -> list[Object]:
        """Services that were installed because something selected them go when nobody selects them any more."""
        found: list[Object] = []
        if annotations_of(bundle).get(KEEP_SERVICES) == "true":
            return found
        namespace, name = namespace_of(bundle), name_of(bundle)
        profile = await self.profiles.get(namespace, name)
        selected = set(profile.services.values()) if profile else set()
        # Without a profile this bundle came no further than asking for the service: the annotation tells.
        asked_for = await self.store.names(_BY_INSTALLED_FOR, namespace, name)
        for service in sorted(selected | asked_for):
            target = await self.store.find(BUNDLE, namespace, service)
            if target is None or is_deleting(target) or INSTALLED_FOR not in annotations_of(target):
                continue
            if await self._is_expected(namespace, annotations_of(target)[INSTALLED_FOR], besides=name):
                continue
            if not await dependants(self.store, self.profiles, namespace, service, besides=name):
                found.append(target)
        return found

    async def _is_expected(self, namespace: str, bundle: str, *, besides: str) -> bool:
        """Whether the bundle that a service was installed for is still about to select it."""
        if bundle == besides or await self.profiles.get(namespace, bundle) is not None:
            return False
        found = await self.store.find(BUNDLE, namespace, bundle)
        return found is not None and not is_deleting(found)


async def dependants(
    store: ObjectStore, profiles: ProfileStore, namespace: str, service: str, *, besides: str = ""
) -> list[str]:
    """Bundles of the namespace whose profile selects ``service``; without a profile, whose options may name it."""
    found = await profiles.selecting(namespace, service)
    for name in sorted(await store.names(_BY_OPTION, namespace, service) - found):
        if await profiles.get(namespace, name) is None:
            found.add(name)
    return [name for name in sorted(found - {besides, service}) if await store.find(BUNDLE, namespace, name)]
