"""``/catalogue``: what can be installed, and what it says about itself."""

from __future__ import annotations

from typing import Any

import pytest

from nanocloud.apiserver.catalogue import PATH, Catalogue
from nanocloud.errors import ImageError
from nanocloud.images import ImageSources
from nanocloud.objects import ObjectStore
from nanocloud.planning import options_schema
from nanocloud.providers.image import CatalogEntry, Image, ImageConfig
from nanocloud.testkit import FakeImages
from nanocloud.testkit.api import GUEST, ApiClient, refusal
from nanocloud.testkit.planning import MARIADB, MARIADB_EXPORTS, WORDPRESS, contract_of, labels_of


class Recipes(FakeImages):
    """Knows one service besides that is not built."""

    async def catalog(self) -> list[CatalogEntry]:
        labels = {"io.nanocloud.options": '{"port": ["80"], "domain": []}'}
        unbuilt = CatalogEntry(service="nginx", reference="nginx", description="A web", built=False, labels=labels)
        return [unbuilt, *await super().catalog()]

    async def resolve(self, reference: str) -> Image:
        if reference == "nginx" and self.is_unreachable:
            raise ImageError("the registry does not answer")
        return await super().resolve(reference)

    is_unreachable = False


@pytest.fixture
def api(store: ObjectStore) -> ApiClient:
    images = Recipes()
    for name, labels in {
        "mariadb": labels_of(MARIADB, MARIADB_EXPORTS),
        "wordpress": labels_of(WORDPRESS),
        "broken": labels_of({"A": []}),
        "reg.example/team/app:2": labels_of({"secret_1": ["pin"], "pin": []}),
    }.items():
        images.add(name, ImageConfig(labels=labels), description=f"The {name}")
    return ApiClient.over(store, routes=Catalogue(images=ImageSources([images])).routes())


async def described(api: ApiClient, service: str) -> dict[str, Any]:
    return (await api.request("GET", f"{PATH}/{service}")).json()  # type: ignore[no-any-return]


async def test_the_catalogue_lists_services_by_name(api: ApiClient) -> None:
    answer = (await api.request("GET", PATH)).json()
    assert answer["kind"] == "CatalogueServiceList"
    assert [item["metadata"]["name"] for item in answer["items"]] == ["broken", "mariadb", "nginx", "wordpress"]
    assert answer["items"][1]["status"] == {"description": "The mariadb", "image": "mariadb", "built": True}


async def test_a_service_comes_with_the_schema_of_its_options(api: ApiClient) -> None:
    found = await described(api, "wordpress")
    assert (found["kind"], found["metadata"]) == ("CatalogueService", {"name": "wordpress"})
    assert found["status"]["schema"] == options_schema(contract_of(WORDPRESS))
    assert found["status"]["services"] == {"database": ["mariadb"]}
    assert found["status"]["digest"].startswith("sha256:")
    exports = (await described(api, "mariadb"))["status"]["exports"]
    assert exports == {"options": ["host", "port"], "bindings": ["create_user", "require_tls"], "owned": {}}


async def test_a_service_that_is_not_built_is_described_by_its_recipe(api: ApiClient) -> None:
    status = (await described(api, "nginx"))["status"]
    assert (status["built"], status["digest"]) == (False, None)
    assert status["schema"]["required"] == ["domain"]


async def test_a_registry_that_does_not_answer_hides_no_recipe(api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recipes, "is_unreachable", True)
    status = (await described(api, "nginx"))["status"]
    assert status["schema"]["required"] == ["domain"]


async def test_an_unknown_service_lists_near_ones(api: ApiClient) -> None:
    error = await refusal(described(api, "wordpres"))
    assert error.code == 404
    assert "did you mean wordpress?" in str(error)


async def test_a_label_that_cannot_be_read_is_told_with_its_place(api: ApiClient) -> None:
    error = await refusal(described(api, "broken"))
    assert error.code == 422
    assert 'io.nanocloud.options["A"]: "A" is not an option name' in str(error)


async def test_any_image_can_be_described(api: ApiClient) -> None:
    async def looked_up(**spec: str) -> dict[str, Any]:
        return (await api.request("POST", PATH, {"spec": spec})).json()["status"]  # type: ignore[no-any-return]

    status = await looked_up(image="reg.example/team/app:2")
    assert status["schema"]["properties"]["pin"]["x-nanocloud-secret"] is True
    assert (await refusal(looked_up(image="nope"))).code == 404
    assert "spec.image" in str(await refusal(looked_up()))
    assert "must be an image reference" in str(await refusal(looked_up(image="")))


async def test_only_those_who_may_install_can_have_images_looked_up(api: ApiClient) -> None:
    guest = api.acting_as(GUEST)
    assert await described(guest, "wordpress")
    assert (await refusal(guest.request("POST", PATH, {"spec": {"image": "wordpress"}}))).code == 403
