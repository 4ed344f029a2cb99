"""``/catalogue``: what can be installed, and what it says about itself."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx2
import pytest
from starlette.types import ASGIApp

from nanocloud.apiserver.app import build_app
from nanocloud.apiserver.auth import MASTERS, User
from nanocloud.apiserver.catalogue import PATH, Catalogue
from nanocloud.apiserver.context import ApiContext
from nanocloud.errors import ImageError
from nanocloud.images import ImageSources
from nanocloud.objects import ObjectStore
from nanocloud.planning import options_schema
from nanocloud.providers.image import CatalogEntry, Image, ImageConfig
from nanocloud.testkit import FakeImages
from nanocloud.testkit.planning import MARIADB, MARIADB_EXPORTS, WORDPRESS, contract_of


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


class Caller:
    def __init__(self, *groups: str) -> None:
        self.groups = groups

    async def authenticate(self, scope: object) -> User:
        return User(name="someone", groups=frozenset(self.groups))


def client_of(store: ObjectStore, *groups: str) -> httpx2.AsyncClient:
    images = Recipes()
    exports = json.dumps(MARIADB_EXPORTS)
    for name, labels in {
        "mariadb": {"io.nanocloud.options": json.dumps(MARIADB), "io.nanocloud.exports": exports},
        "wordpress": {"io.nanocloud.options": json.dumps(WORDPRESS)},
        "broken": {"io.nanocloud.options": '{"A": []}'},
        "reg.example/team/app:2": {"io.nanocloud.options": '{"secret_1": ["pin"], "pin": []}'},
    }.items():
        images.add(name, ImageConfig(labels=labels), description=f"The {name}")
    routes = tuple(Catalogue(images=ImageSources([images])).routes())
    app: ASGIApp = build_app(ApiContext(store=store, authenticator=Caller(*groups), routes=routes))
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="https://node")


@pytest.fixture
async def client(store: ObjectStore) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(store, MASTERS) as client:
        yield client


async def test_the_catalogue_lists_services_by_name(client: httpx2.AsyncClient) -> None:
    answer = (await client.get(PATH)).json()
    assert answer["kind"] == "CatalogueServiceList"
    assert [item["metadata"]["name"] for item in answer["items"]] == ["broken", "mariadb", "nginx", "wordpress"]
    assert answer["items"][1]["status"] == {"description": "The mariadb", "image": "mariadb", "built": True}


async def test_a_service_comes_with_the_schema_of_its_options(client: httpx2.AsyncClient) -> None:
    found = (await client.get(f"{PATH}/wordpress")).json()
    assert (found["kind"], found["metadata"]) == ("CatalogueService", {"name": "wordpress"})
    assert found["status"]["schema"] == options_schema(contract_of(WORDPRESS))
    assert found["status"]["services"] == {"database": ["mariadb"]}
    assert found["status"]["digest"].startswith("sha256:")
    exports = (await client.get(f"{PATH}/mariadb")).json()["status"]["exports"]
    assert exports == {"options": ["host", "port"], "bindings": ["create_user", "require_tls"], "owned": {}}


async def test_a_service_that_is_not_built_is_described_by_its_recipe(client: httpx2.AsyncClient) -> None:
    status = (await client.get(f"{PATH}/nginx")).json()["status"]
    assert (status["built"], status["digest"]) == (False, None)
    assert status["schema"]["required"] == ["domain"]


async def test_a_registry_that_does_not_answer_hides_no_recipe(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recipes, "is_unreachable", True)
    status = (await client.get(f"{PATH}/nginx")).json()["status"]
    assert status["schema"]["required"] == ["domain"]


async def test_an_unknown_service_lists_near_ones(client: httpx2.AsyncClient) -> None:
    answer = await client.get(f"{PATH}/wordpres")
    assert answer.status_code == 404
    assert "did you mean wordpress?" in answer.json()["message"]


async def test_a_label_that_cannot_be_read_is_told_with_its_place(client: httpx2.AsyncClient) -> None:
    answer = await client.get(f"{PATH}/broken")
    assert answer.status_code == 422
    assert 'io.nanocloud.options["A"]: "A" is not an option name' in answer.json()["message"]


async def test_any_image_can_be_described(client: httpx2.AsyncClient) -> None:
    status = (await client.post(PATH, json={"spec": {"image": "reg.example/team/app:2"}})).json()["status"]
    assert status["schema"]["properties"]["pin"]["x-nanocloud-secret"] is True
    assert (await client.post(PATH, json={"spec": {"image": "nope"}})).status_code == 404
    assert "spec.image" in (await client.post(PATH, json={"spec": {}})).json()["message"]
    assert "must be an image reference" in (await client.post(PATH, json={"spec": {"image": ""}})).json()["message"]


async def test_only_those_who_may_install_can_have_images_looked_up(store: ObjectStore) -> None:
    async with client_of(store) as client:
        assert (await client.get(f"{PATH}/wordpress")).status_code == 200
        assert (await client.post(PATH, json={"spec": {"image": "wordpress"}})).status_code == 403
