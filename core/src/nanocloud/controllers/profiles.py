"""Profiles in the keyspace: one a bundle, at ``("profiles", <namespace>, <bundle>)``, secrets sealed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from nanocloud.errors import ConflictError, NotFoundError
from nanocloud.keyspace import Put
from nanocloud.planning.profile import Profile, profile_from_json, profile_to_json
from nanocloud.providers.image import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nanocloud.keyspace import Entry, Keyspace
    from nanocloud.secrets import Envelope

_PREFIX = ("profiles",)


class ProfileStore:
    """Reads and writes profiles."""

    def __init__(self, keyspace: Keyspace, envelope: Envelope) -> None:
        self._keyspace, self._envelope = keyspace, envelope
        self._by_service = keyspace.index(_PREFIX, _selected)

    async def get(self, namespace: str, bundle: str) -> Profile | None:
        entry = await self._keyspace.get(_key(namespace, bundle))
        if entry is None:
            return None
        return profile_from_json(orjson.loads(entry.value), self._envelope.unseal, owner=f"{namespace}/{bundle}")

    async def put(self, namespace: str, bundle: str, profile: Profile) -> None:
        """Store, unless it is what is stored already: sealing is never twice the same, so the values are compared."""
        if await self.get(namespace, bundle) == profile:
            return
        entry = self.entry(namespace, bundle, profile)
        await self._keyspace.put(entry.key, entry.value)

    def entry(self, namespace: str, bundle: str, profile: Profile) -> Put:
        """The write that stores it, for a transaction of the caller's."""
        stored = profile_to_json(profile, self._envelope.seal, owner=f"{namespace}/{bundle}")
        return Put(_key(namespace, bundle), orjson.dumps(stored))

    async def selecting(self, namespace: str, service: str) -> set[str]:
        """The bundles of the namespace whose profile selects ``service``."""
        return {key[-1] for key in await self._by_service.members(f"{namespace}/{service}")}

    async def images(self) -> set[Digest]:
        """The images that all profiles together need."""
        entries = (await self._keyspace.list(_PREFIX)).entries
        return {Digest(orjson.loads(entry.value)["image"]) for entry in entries}

    async def remove(self, namespace: str, bundle: str) -> None:
        try:
            await self._keyspace.delete(_key(namespace, bundle))
        except (NotFoundError, ConflictError):
            pass  # it is gone already


def _key(namespace: str, bundle: str) -> tuple[str, ...]:
    return *_PREFIX, namespace, bundle


def _selected(entry: Entry) -> Iterator[str]:
    """The services that a stored profile selects."""
    _, namespace, _ = entry.key
    return (f"{namespace}/{service}" for service in (orjson.loads(entry.value).get("services") or {}).values())
