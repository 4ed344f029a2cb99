"""Event objects: what happened to an object, counted instead of repeated, kept for an hour after the last time."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

from nanocloud.errors import ForbiddenError
from nanocloud.models.core import EVENT
from nanocloud.models.meta import Object, name_of, namespace_of, now, reference, uid_of
from nanocloud.objects.errors import ObjectExistsError, ObjectNotFoundError
from nanocloud.objects.store import DEFAULT_NAMESPACE

if TYPE_CHECKING:
    from nanocloud.objects.store import ObjectStore

_MESSAGE_LIMIT = 1024


class EventRecorder:
    """Writes events. The same object, reason, message and component is one Event whose count grows."""

    def __init__(self, store: ObjectStore, *, component: str = "nanocloud") -> None:
        self._store, self._component = store, component

    async def record(
        self,
        obj: Object,
        *,
        reason: str,
        message: str,
        type: Literal["Normal", "Warning"] = "Normal",
        component: str | None = None,
    ) -> Object | None:
        """Say that something happened to ``obj``. ``message`` must hold no secret; it is clipped to 1024 characters.

        Events of cluster-scoped objects live in the namespace ``default``. A namespace that is going away, or gone,
        takes no more events: then nothing is written and None returned.
        """
        who, message = component or self._component, message[:_MESSAGE_LIMIT]
        namespace = namespace_of(obj) or DEFAULT_NAMESPACE
        # The name says what the event is about: two writers, or one after a restart, meet at the same object.
        mark = hashlib.sha256("\0".join([obj.get("kind", ""), uid_of(obj), who, type, reason, message]).encode())
        name = f"{name_of(obj)[:230]}.{mark.hexdigest()[:16]}"
        while True:
            try:
                return await self._store.modify(EVENT, namespace, name, _count)
            except ObjectNotFoundError:
                pass
            try:
                return await self._store.create(EVENT, _event(obj, namespace, name, who, type, reason, message))
            except ObjectExistsError:
                continue
            except (ForbiddenError, ObjectNotFoundError):
                return None


def _count(event: Object) -> None:
    event["count"] = int(event.get("count") or 1) + 1
    event["lastTimestamp"] = now()


def _event(obj: Object, namespace: str, name: str, who: str, type: str, reason: str, message: str) -> Object:
    at = now()
    return {
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": reference(obj),
        "reason": reason,
        "message": message,
        "type": type,
        "count": 1,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "source": {"component": who},
        "reportingComponent": who,
    }
