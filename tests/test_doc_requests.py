"""Request bodies of the API's documentation, sent to an API server."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the module beside this one

from documents import ROOT, blocks_of

from nanocloud.apiserver.app import build_app
from nanocloud.apiserver.catalogue import Catalogue
from nanocloud.apiserver.context import ApiContext
from nanocloud.apiserver.credentials import NodeAuthenticator, NodeAuthorizer
from nanocloud.apiserver.exchange import Exchange
from nanocloud.client.api import ApiError
from nanocloud.controllers.profiles import ProfileStore
from nanocloud.controllers.transfer import ProfileTransfer
from nanocloud.identity.authority import CertificateAuthority, new_request
from nanocloud.identity.tokens import BearerTokens, Grant, TokenStore
from nanocloud.images import ImageSources
from nanocloud.objects import EventRecorder
from nanocloud.providers.image import ImageConfig
from nanocloud.secrets import Envelope
from nanocloud.testkit import FakeImages, FakeStorage
from nanocloud.testkit.api import NOBODY, Answer, ApiClient
from nanocloud.testkit.objects import NODE_KEY, open_store

BEARERS = BearerTokens(b"k" * 32)
ADMIN = {"Authorization": f"Bearer {BEARERS.sign(Grant(user='admin', groups=['system:masters']))}"}
PAGE = ROOT / "docs" / "api.md"
BLOCKS = {block.title: block.text for block in blocks_of(PAGE)}
GUIDE = {block.title: block.text for block in blocks_of(ROOT / "docs" / "images.md")}


@pytest.fixture
async def api() -> AsyncIterator[ApiClient]:
    """A server with one image, as callers with credentials see it."""
    images = FakeImages()
    labels = {"io.nanocloud.options": GUIDE["guestbook options.json"]}
    images.add("oci:/srv/images:guestbook", ImageConfig(labels=labels))
    async with open_store(FakeStorage()) as store:
        envelope = Envelope(NODE_KEY)
        exchange = Exchange(authority=CertificateAuthority.create(), grants=TokenStore(store.keyspace), bearers=BEARERS)
        context = ApiContext(
            store=store,
            authenticator=NodeAuthenticator(BEARERS),
            authorizer=NodeAuthorizer(),
            transfer=ProfileTransfer(
                store=store,
                profiles=ProfileStore(store.keyspace, envelope),
                events=EventRecorder(store),
                envelope=envelope,
            ),
            routes=(*exchange.routes(), *Catalogue(images=ImageSources([images])).routes()),
        )
        yield ApiClient(build_app(context), NOBODY)


async def post(api: ApiClient, title: str, headers: dict[str, str] = ADMIN, **replaced: str) -> Answer:
    """What a block asks for; ``replaced`` stands for what the page shortens."""
    body: dict[str, Any] = json.loads(BLOCKS[title])
    assert replaced.keys() <= body["spec"].keys()
    body["spec"] |= replaced
    path = title.removeprefix("POST ").replace("...", "/apis/nanocloud.io/v1/namespaces/default")
    return await api.request("POST", path, body, headers=headers)


def test_every_request_is_sent_here() -> None:
    sent = Path(__file__).read_text()
    assert [title for title in BLOCKS if title.startswith("POST") and f'"{title}"' not in sent] == []


async def test_a_bundle_is_taken_as_it_is_shown(api: ApiClient) -> None:
    path = "/apis/nanocloud.io/v1/namespaces/default/bundles"
    headers = {**ADMIN, "Content-Type": "application/yaml"}
    answer = await api.request("POST", path, BLOCKS["bundle"].encode(), headers=headers)
    assert (answer.code, answer.json()["spec"]["options"]) == (201, {"database": "mariadb"})


async def test_an_image_is_described(api: ApiClient) -> None:
    answer = await post(api, "POST /apis/nanocloud.io/v1/catalogue")
    assert "admin_token" in answer.json()["status"]["schema"]["properties"]


async def test_a_token_becomes_a_certificate(api: ApiClient) -> None:
    token = (await post(api, "POST /apis/nanocloud.io/v1/tokens")).json()["status"]["token"]
    _, request = new_request("ann")
    holder = {"Authorization": f"Bearer {token}"}
    answer = await post(api, "POST /apis/nanocloud.io/v1/certificates", holder, request=request.decode())
    assert answer.json()["status"]["certificate"].startswith("-----BEGIN CERTIFICATE-----")


async def test_an_import_is_understood(api: ApiClient) -> None:
    with pytest.raises(ApiError, match="archive") as refused:  # the page shows the beginning of one
        await post(api, "POST .../bundles/blog/importProfile")
    assert refused.value.code == 422
