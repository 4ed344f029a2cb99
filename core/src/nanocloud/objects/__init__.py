"""API objects in the keyspace: the store that controllers, kubelet and apiserver share."""

from nanocloud.objects.errors import ObjectExistsError, ObjectNotFoundError, PreconditionError, StaleObjectError
from nanocloud.objects.events import EventRecorder
from nanocloud.objects.grouping import Grouping, by_owner
from nanocloud.objects.namespaces import NamespaceController
from nanocloud.objects.store import ObjectList, ObjectStore, ObjectWatcher, WatchEvent, WatchType

__all__ = [
    "EventRecorder",
    "Grouping",
    "NamespaceController",
    "ObjectExistsError",
    "ObjectList",
    "ObjectNotFoundError",
    "ObjectStore",
    "ObjectWatcher",
    "PreconditionError",
    "StaleObjectError",
    "WatchEvent",
    "WatchType",
    "by_owner",
]
