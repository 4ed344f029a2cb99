"""Single-use grants, and the bearer tokens they are exchanged for."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING

import jwt
import pytest
import trio

from nanocloud.errors import UnauthorizedError
from nanocloud.identity.tokens import BearerTokens, Grant, TokenStore
from nanocloud.keyspace import Keyspace
from nanocloud.storage import SqliteStorage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trio.testing import MockClock

ALICE = Grant(user="alice", groups=["developers"])
KEY = b"k" * 32


@pytest.fixture
async def keyspace(tmp_path: Path, mock_clock: MockClock) -> AsyncIterator[Keyspace]:
    storage = SqliteStorage(tmp_path / "keyspace")
    async with storage, Keyspace.open(storage, clock=lambda: 1e9 + trio.current_time()) as keyspace:
        yield keyspace


@pytest.fixture
def grants(keyspace: Keyspace) -> TokenStore:
    return TokenStore(keyspace)


def everything_below(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


async def test_a_grant_is_good_once(grants: TokenStore, mock_clock: MockClock) -> None:
    token = await grants.create(ALICE)
    assert await grants.redeem(token) == ALICE
    with pytest.raises(UnauthorizedError, match="unknown, expired, or was used"):
        await grants.redeem(token)


async def test_of_many_clients_at_once_exactly_one_gets_the_grant(grants: TokenStore, mock_clock: MockClock) -> None:
    token, won, lost = await grants.create(ALICE), [], []

    async def redeem() -> None:
        try:
            won.append(await grants.redeem(token))
        except UnauthorizedError as exc:
            lost.append(exc)

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(redeem)
    assert won == [ALICE]
    assert len(lost) == 49


async def test_the_token_itself_is_kept_nowhere(grants: TokenStore, tmp_path: Path, mock_clock: MockClock) -> None:
    token = await grants.create(ALICE)
    stored = everything_below(tmp_path)
    assert b"alice" in stored
    assert token.encode() not in stored
    assert token.removeprefix("nc1.").encode() not in stored


async def test_a_grant_ends_with_its_time(grants: TokenStore, keyspace: Keyspace, mock_clock: MockClock) -> None:
    token = await grants.create(ALICE, ttl_seconds=60)
    other = await grants.create(ALICE, ttl_seconds=120)
    await trio.testing.wait_all_tasks_blocked(0.01)
    async with keyspace.watch(("tokens",), after=keyspace.revision) as changes:
        mock_clock.jump(61)
        await changes.__anext__()
    with pytest.raises(UnauthorizedError):
        await grants.redeem(token)
    assert await grants.redeem(other) == ALICE


@pytest.mark.parametrize("token", ["", "nc1.", "nc1.x", "x" * 5000, "nc2.abc", "nc1.\x00", "nc1.ü"])
async def test_what_is_no_token_is_refused_alike(grants: TokenStore, mock_clock: MockClock, token: str) -> None:
    with pytest.raises(UnauthorizedError, match="unknown, expired, or was used"):
        await grants.redeem(token)


async def test_tokens_are_long_and_differ(grants: TokenStore, mock_clock: MockClock) -> None:
    tokens = {await grants.create(ALICE) for _ in range(20)}
    assert len(tokens) == 20
    assert {len(token) for token in tokens} == {len("nc1.") + 43}


# ---- bearer tokens ---------------------------------------------------------------------------------------------------


def test_a_bearer_token_says_who_it_is_for() -> None:
    tokens = BearerTokens(KEY)
    assert tokens.verify(tokens.sign(ALICE)) == ALICE


def _changed(token: str) -> str:
    head, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["groups"] = ["system:masters"]
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"{head}.{forged}.{signature}"


@pytest.mark.parametrize(
    "token",
    [
        BearerTokens(b"other" * 8).sign(ALICE),
        BearerTokens(KEY, clock=lambda: time.time() - 31 * 24 * 3600).sign(ALICE),
        BearerTokens(KEY).sign(ALICE, ttl_seconds=-1),
        _changed(BearerTokens(KEY).sign(ALICE)),
        jwt.encode({"sub": "alice", "iss": "nanocloud", "exp": time.time() + 60}, "", algorithm="none"),
        jwt.encode({"sub": "alice", "exp": time.time() + 60}, KEY, algorithm="HS256"),
        jwt.encode({"sub": "alice", "iss": "nanocloud"}, KEY, algorithm="HS256"),
        jwt.encode({"iss": "nanocloud", "exp": time.time() + 60}, KEY, algorithm="HS256"),
        jwt.encode({"sub": "alice", "iss": "someone", "exp": time.time() + 60}, KEY, algorithm="HS256"),
        "",
        "a.b.c",
        "ü",
    ],
    ids=[
        "other key",
        "old",
        "expired",
        "changed",
        "unsigned",
        "no issuer",
        "endless",
        "nobody",
        "foreign",
        "",
        "abc",
        "ü",
    ],
)
def test_a_bearer_token_that_does_not_hold_is_refused(token: str) -> None:
    with pytest.raises(UnauthorizedError, match="does not hold"):
        BearerTokens(KEY).verify(token)


def test_a_key_is_not_shown() -> None:
    assert "kkk" not in repr(BearerTokens(KEY))
