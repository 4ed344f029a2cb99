"""API objects as a user would write them, and a store to put them in.

Every builder gives plain JSON data with the fields that the API asks for; what a test is about, it says.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from nanocloud.keyspace import Keyspace
from nanocloud.models.builtin import builtin_registry
from nanocloud.objects import ObjectStore
from nanocloud.secrets import Envelope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from nanocloud.models.meta import Object
    from nanocloud.providers.storage import StorageProvider

NODE_KEY = bytes(range(32))


@asynccontextmanager
async def open_store(storage: StorageProvider) -> AsyncIterator[ObjectStore]:
    """An object store of the built-in kinds with its first namespaces, over a keyspace on ``storage``.

    With a FakeStorage there is no thread and no file, and time may be virtual.
    """
    envelope = Envelope(NODE_KEY)
    async with storage, Keyspace.open(storage) as keyspace:
        store = ObjectStore(keyspace, builtin_registry(), seal=envelope.seal, unseal=envelope.unseal)
        await store.ensure_namespaces()
        yield store


def bundle(name: str, *, namespace: str = "default", service: str = "", **spec: Any) -> Object:
    """A Bundle of the service of its name; ``spec`` are more fields of its spec."""
    return {"metadata": _metadata(name, namespace), "spec": {"service": service or name} | spec}


def config_map(
    name: str, *, namespace: str = "default", labels: Mapping[str, str] | None = None, **data: str
) -> Object:
    """The smallest object there is, for tests of what holds for all kinds."""
    return {"metadata": _metadata(name, namespace, labels), "data": data}


def secret(name: str, *, namespace: str = "default", **values: str) -> Object:
    """A Secret with its values in clear text, as users may write them."""
    return {"metadata": _metadata(name, namespace), "stringData": values}


def pod(name: str, *, namespace: str = "default", container: Mapping[str, Any] | None = None, **spec: Any) -> Object:
    """A Pod with one container ``main``; ``container`` are more of its fields."""
    return {
        "metadata": _metadata(name, namespace),
        "spec": {"containers": [{"name": "main", **(container or {})}], **spec},
    }


def _metadata(name: str, namespace: str, labels: Mapping[str, str] | None = None) -> Object:
    return {"name": name, "namespace": namespace, **({"labels": dict(labels)} if labels else {})}
