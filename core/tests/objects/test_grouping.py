"""Finding the objects that belong to something."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nanocloud.models.core import CONFIG_MAP, NAMESPACE, SECRET
from nanocloud.models.meta import labels_of, name_of
from nanocloud.objects import Grouping, by_owner
from nanocloud.testkit.objects import config_map, secret

if TYPE_CHECKING:
    from nanocloud.models.meta import Object
    from nanocloud.objects import ObjectStore

BY_COLOUR = Grouping(CONFIG_MAP, lambda obj: [value for key, value in labels_of(obj).items() if key == "colour"])


def coloured(name: str, colour: str, namespace: str = "default") -> Object:
    return config_map(name, namespace=namespace, labels={"colour": colour})


async def test_members_are_those_of_the_group_in_the_namespace_by_name(store: ObjectStore) -> None:
    await store.create(NAMESPACE, {"metadata": {"name": "other"}})
    for made in (coloured("b", "red"), coloured("a", "red"), coloured("c", "blue"), coloured("d", "red", "other")):
        await store.create(CONFIG_MAP, made)
    assert [name_of(obj) for obj in await store.members(BY_COLOUR, "default", "red")] == ["a", "b"]
    assert await store.names(BY_COLOUR, "other", "red") == {"d"}
    await store.delete(CONFIG_MAP, "default", "a")
    await store.modify(CONFIG_MAP, "default", "c", lambda _: coloured("c", "red"))
    found = await store.members(BY_COLOUR, "default", "red")
    assert found == [await store.get(CONFIG_MAP, "default", name) for name in ("b", "c")]


async def test_what_an_owner_owns_is_found_with_its_encrypted_fields(store: ObjectStore) -> None:
    made = secret("mine", key="value")
    made["metadata"]["ownerReferences"] = [{"apiVersion": "v1", "kind": "Bundle", "name": "web", "uid": "u-1"}]
    await store.create(SECRET, made)
    await store.create(SECRET, secret("other"))
    (found,) = await store.members(by_owner(SECRET), "default", "u-1")
    assert found["data"] == {"key": "dmFsdWU="}
