"""Finds what uninstalling a bundle would take along. Reading is all it does; ``uninstall`` then takes it.

Both go by the same marks: what a bundle owns carries its owner reference, and a service that was installed for it says
so in an annotation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from nanocloud.controllers import children
from nanocloud.controllers.uninstall import INSTALLED_FOR, KEEP_SERVICES
from nanocloud.models.bundle import BUNDLE
from nanocloud.models.core import PERSISTENT_VOLUME_CLAIM, SECRET
from nanocloud.models.meta import annotations_of, is_deleting, name_of, namespace_of
from nanocloud.models.pod import POD
from nanocloud.planning.removal import Removal, RemovedSecret, RemovedVolume

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nanocloud.controllers.profiles import ProfileStore
    from nanocloud.models.meta import Object
    from nanocloud.objects import ObjectStore


@attrs.frozen(kw_only=True)
class Removals:
    store: ObjectStore
    profiles: ProfileStore

    async def plan(self, namespace: str, name: str, *, keep_services: bool = False) -> list[Removal]:
        """The bundle, then the services that go with it.

        Raises:
            NotFoundError: there is no such bundle.
        """
        bundle = await self.store.get(BUNDLE, namespace, name)
        stays = keep_services or annotations_of(bundle).get(KEEP_SERVICES) == "true"
        going: dict[str, str | None] = {name: None}
        objects = {name_of(found): found for found in (await self.store.list(BUNDLE, namespace)).items}
        selected = {other: await self._selected(found) for other, found in objects.items()}
        while not stays:
            found = next(self._goes_too(objects, selected, going), None)
            if found is None:
                break
            going[found[0]] = found[1]
        return [
            await self._removal(
                objects.get(each, bundle), because_of, [u for u in selected if u not in going and each in selected[u]]
            )
            for each, because_of in going.items()
        ]

    async def _selected(self, bundle: Object) -> set[str]:
        """The bundles that this one uses; before it is prepared, all that its options could name."""
        profile = await self.profiles.get(namespace_of(bundle), name_of(bundle))
        if profile is not None:
            return set(profile.services.values())
        return set((bundle["spec"].get("options") or {}).values())

    def _goes_too(
        self, objects: dict[str, Object], selected: dict[str, set[str]], going: dict[str, str | None]
    ) -> Iterator[tuple[str, str]]:
        """Services that were installed because something selected them, once only what goes selects them."""
        for name, found in objects.items():
            installed_for = annotations_of(found).get(INSTALLED_FOR)
            if name in going or installed_for is None or is_deleting(found):
                continue
            wanted = [one for one in going if name in selected[one] or installed_for == one]
            if wanted and all(one in going for one, uses in selected.items() if name in uses and one != name):
                yield name, wanted[0]

    async def _removal(self, bundle: Object, because_of: str | None, used_by: list[str]) -> Removal:
        namespace, name = namespace_of(bundle), name_of(bundle)
        profile = await self.profiles.get(namespace, name)
        options = (bundle.get("status") or {}).get("options") or {}
        pods = await children.children(self.store, POD, bundle)
        claims = await children.children(self.store, PERSISTENT_VOLUME_CLAIM, bundle)
        secrets = await children.children(self.store, SECRET, bundle)
        return Removal(
            bundle=name,
            service=bundle["spec"]["service"],
            because_of=because_of,
            pod=name_of(pods[0]) if pods else None,
            volumes=tuple(_volume(claim, options) for claim in claims),
            secrets=tuple(RemovedSecret(name=name_of(s), keys=tuple(sorted(s.get("data") or {}))) for s in secrets),
            bindings=tuple(profile.bindings.items()) if profile else (),
            used_by=tuple(used_by),
        )


def _volume(claim: Object, options: dict[str, str]) -> RemovedVolume:
    size = (claim["spec"]["resources"].get("requests") or {}).get("storage", "")
    index = name_of(claim).split("-")[1]  # volume-<n>-<bundle>-0
    return RemovedVolume(name=name_of(claim), size=size, mount_path=options.get(f"volume_{index}", ""))
