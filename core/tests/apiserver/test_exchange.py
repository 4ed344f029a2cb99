"""Tokens and certificates over the API: who may make them, and how one becomes the other."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from nanocloud.apiserver.app import build_app
from nanocloud.apiserver.auth import AUTHENTICATED, User
from nanocloud.apiserver.context import ApiContext
from nanocloud.apiserver.credentials import EXCHANGE_PATH, NodeAuthenticator, NodeAuthorizer
from nanocloud.apiserver.exchange import TOKENS_PATH, Exchange
from nanocloud.client.api import ApiError
from nanocloud.errors import UnauthorizedError
from nanocloud.identity.authority import CertificateAuthority, KeyPair, new_request
from nanocloud.identity.tokens import BearerTokens, Grant, TokenStore
from nanocloud.keyspace import Keyspace
from nanocloud.objects import ObjectStore
from nanocloud.testkit.api import NOBODY, Answer, ApiClient, refusal

ADMIN = Grant(user="admin", groups=["system:masters"])
ALICE = Grant(user="alice", groups=["developers"])


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority.create()


@pytest.fixture
def bearers() -> BearerTokens:
    return BearerTokens(b"k" * 32)


@pytest.fixture
def grants(keyspace: Keyspace) -> TokenStore:
    return TokenStore(keyspace)


@pytest.fixture
def node(store: ObjectStore, authority: CertificateAuthority, grants: TokenStore, bearers: BearerTokens) -> ApiClient:
    exchange = Exchange(authority=authority, grants=grants, bearers=bearers)
    app = build_app(
        ApiContext(
            store=store,
            authenticator=NodeAuthenticator(bearers),
            authorizer=NodeAuthorizer(),
            routes=tuple(exchange.routes()),
        )
    )
    return ApiClient(app, NOBODY)  # who calls is what the credentials say


async def post(node: ApiClient, path: str, token: str, spec: Any = None, *, body: Any = None) -> Answer:
    return await node.request("POST", path, {"spec": spec} if body is None else body, headers=bearer(token))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_a_grant_becomes_a_certificate_once(
    node: ApiClient, grants: TokenStore, authority: CertificateAuthority
) -> None:
    token = await grants.create(ALICE)
    key, request = new_request("whatever")
    wanted = {"request": request.decode(), "user": "admin", "groups": ["system:masters"]}
    answer = await post(node, EXCHANGE_PATH, token, wanted)
    assert answer.code == 201
    status = answer.json()["status"]
    certificate = x509.load_pem_x509_certificate(status["certificate"].encode())
    assert certificate.subject.rfc4514_string() == "CN=alice,O=developers", "the grant says who, not the request"
    assert status["user"] == "alice"
    assert status["ca"].encode() == authority.certificate
    public = serialization.load_pem_private_key(key, password=None).public_key()
    assert certificate.public_key() == public
    assert (await refusal(post(node, EXCHANGE_PATH, token, wanted))).code == 401


async def test_a_grant_becomes_a_bearer_token(node: ApiClient, grants: TokenStore) -> None:
    token = await grants.create(ADMIN)
    answer = await post(node, EXCHANGE_PATH, token, {"type": "bearer"})
    signed = answer.json()["status"]["token"]
    assert (await node.request("GET", "/api/v1/namespaces", headers=bearer(signed))).code == 200


async def test_of_many_clients_at_once_one_gets_a_certificate(node: ApiClient, grants: TokenStore) -> None:
    token = await grants.create(ALICE)
    codes: list[int] = []

    async def exchange() -> None:
        try:
            codes.append((await post(node, EXCHANGE_PATH, token, {"type": "bearer"})).code)
        except ApiError as error:
            codes.append(error.code)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(exchange)
    assert sorted(codes) == [201] + [401] * 19


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"spec": {"request": "-----BEGIN NONSENSE-----"}}, 422),
        ({"spec": {}}, 422),
        ({"spec": {"type": "kerberos"}}, 422),
        ({"spec": {"reqest": "x"}}, 422),
        ({"spec": []}, 422),
        ([], 422),
    ],
)
async def test_a_bad_request_does_not_use_the_grant_up(
    node: ApiClient, grants: TokenStore, body: Any, code: int
) -> None:
    token = await grants.create(ALICE)
    assert (await refusal(post(node, EXCHANGE_PATH, token, body=body))).code == code
    assert (await post(node, EXCHANGE_PATH, token, {"type": "bearer"})).code == 201


async def test_a_body_that_is_no_json_or_too_large(node: ApiClient, grants: TokenStore) -> None:
    token = await grants.create(ALICE)
    for content, code in ((b"{", 400), (b"\xff", 400), (b"[" * 5000, 400), (b"[" * 4_000_000, 413)):
        error = await refusal(post(node, EXCHANGE_PATH, token, body=content))
        assert (error.code, error.cause["kind"]) == (code, "Status")
    assert await grants.redeem(token) == ALICE


async def test_a_grant_is_good_for_nothing_else(node: ApiClient, grants: TokenStore) -> None:
    token = await grants.create(ADMIN)
    for path in ("/api/v1/namespaces", TOKENS_PATH, "/version", "/metrics", f"{EXCHANGE_PATH}/x"):
        assert (await refusal(node.request("GET", path, headers=bearer(token)))).code in (401, 403), path
    assert (await refusal(post(node, TOKENS_PATH, token, {}))).code == 401
    assert await grants.redeem(token) == ADMIN


@pytest.mark.parametrize("token", ["nc1.unknown", "garbage", "", "nc1."])
async def test_credentials_that_are_not_good(node: ApiClient, token: str) -> None:
    assert (await refusal(post(node, EXCHANGE_PATH, token, {"type": "bearer"}))).code == 401
    assert (await refusal(post(node, TOKENS_PATH, token, {}))).code == 401


async def test_of_a_stranger_no_body_is_read(node: ApiClient, grants: TokenStore) -> None:
    used = await grants.create(ALICE)
    await grants.redeem(used)
    for token in (used, "nc1.unknown"):
        for content in (b"no JSON", bytes(4_000_000)):
            assert (await refusal(post(node, EXCHANGE_PATH, token, body=content))).code == 401


async def test_only_masters_make_tokens_and_certificates(node: ApiClient, bearers: BearerTokens) -> None:
    alice, admin = bearers.sign(ALICE), bearers.sign(ADMIN)
    _, request = new_request("x")
    for path, spec in ((TOKENS_PATH, {}), (EXCHANGE_PATH, {"request": request.decode()})):
        assert (await refusal(post(node, path, alice, spec))).code == 403
        assert (await post(node, path, admin, spec)).code == 201


async def test_an_administrator_makes_a_token_for_another(
    node: ApiClient, bearers: BearerTokens, grants: TokenStore
) -> None:
    admin = bearers.sign(ADMIN)
    spec = {"user": "bob", "groups": ["developers"], "ttlSeconds": 600}
    status = (await post(node, TOKENS_PATH, admin, spec)).json()["status"]
    assert (status["user"], status["ttlSeconds"]) == ("bob", 600)
    assert await grants.redeem(status["token"]) == Grant(user="bob", groups=["developers"])


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"ttlSeconds": 0}, "spec.ttlSeconds is 0"),
        ({"ttlSeconds": 10**9}, "spec.ttlSeconds is 1000000000"),
        ({"ttlSeconds": "1h"}, "spec.ttlSeconds: expected an integer, got '1h'"),
        ({"user": ""}, "spec.user is ''"),
        ({"user": "x" * 65}, "it must be 1 to 64 printable characters"),
        ({"user": "a\nb"}, "it must be 1 to 64 printable characters"),
        ({"groups": "system:masters"}, "spec.groups: expected a list"),
        ({"groups": ["ok", ""]}, "spec.groups[1] is ''"),
        ({"groups": ["g"] * 65}, "spec.groups has 65 entries"),
        ({"usr": "bob"}, 'unknown field "spec.usr"'),
    ],
)
async def test_what_a_token_cannot_be(node: ApiClient, bearers: BearerTokens, spec: dict[str, Any], told: str) -> None:
    error = await refusal(post(node, TOKENS_PATH, bearers.sign(ADMIN), spec))
    assert error.code == 422
    assert told in str(error)


# ---- who a connection is ---------------------------------------------------------------------------------------------


def scope(pair: KeyPair | None, *headers: tuple[bytes, bytes], path: str = "/api") -> dict[str, Any]:
    der = None
    if pair is not None:
        der = x509.load_pem_x509_certificate(pair.certificate).public_bytes(serialization.Encoding.DER)
    return {"type": "http", "path": path, "headers": list(headers), "state": {"tls": {"der": der}}}


async def test_a_client_certificate_names_user_and_groups(
    authority: CertificateAuthority, bearers: BearerTokens
) -> None:
    user = await NodeAuthenticator(bearers).authenticate(scope(authority.issue_client("alice", ["a", "b"])))
    assert user == User(name="alice", groups=frozenset({"a", "b", AUTHENTICATED}))


async def test_the_certificate_of_a_service_is_no_user(authority: CertificateAuthority, bearers: BearerTokens) -> None:
    """Every container with TLS holds one; a service called admin must not be the admin."""
    with pytest.raises(UnauthorizedError, match="belongs to a service"):
        await NodeAuthenticator(bearers).authenticate(scope(authority.issue_service("admin", ["admin"])))


async def test_nobody_without_credentials(bearers: BearerTokens) -> None:
    authenticator = NodeAuthenticator(bearers)
    assert await authenticator.authenticate(scope(None)) is None
    assert await authenticator.authenticate({"type": "http", "path": "/", "headers": []}) is None
    assert await authenticator.authenticate(scope(None, (b"authorization", b"Basic abc"))) is None


async def test_a_bearer_token_goes_before_the_certificate(
    authority: CertificateAuthority, bearers: BearerTokens
) -> None:
    header = (b"authorization", b"bearer " + bearers.sign(ALICE).encode())
    user = await NodeAuthenticator(bearers).authenticate(scope(authority.issue_client("root", []), header))
    assert user is not None
    assert user.name == "alice"
