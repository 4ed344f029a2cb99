"""Tokens: single-use grants, and the signed bearer tokens that a grant may be exchanged for.

A grant is ``nc1.<43 characters base64url>``; only its SHA-256 is stored, at the keyspace key ``("tokens", <hex>)``,
with a time to live. Redeeming deletes that key by compare-and-set, so of any number of racing clients exactly one wins.

A bearer token is a JWT (RFC 7519), HS256 under the node's token key: ``sub`` user, ``groups``, ``iat``, ``exp``.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
import jwt
import orjson

from nanocloud.ambient import wall_clock
from nanocloud.errors import ConflictError, NotFoundError, UnauthorizedError
from nanocloud.models.converter import structure, unstructure

if TYPE_CHECKING:
    from nanocloud.keyspace import Entry, Keyspace

GRANT_TTL_SECONDS = 24 * 3600.0
BEARER_TTL_SECONDS = 30 * 24 * 3600.0
GRANT_PREFIX = "nc1."
_ISSUER = "nanocloud"


@attrs.frozen(kw_only=True)
class Grant:
    """What a single-use token permits: to become this user."""

    user: str
    groups: list[str]


class TokenStore:
    """Grants in the keyspace."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace

    async def create(self, grant: Grant, *, ttl_seconds: float = GRANT_TTL_SECONDS) -> str:
        """Store the grant and return the token, which is shown once and kept nowhere."""
        token = GRANT_PREFIX + secrets.token_urlsafe(32)
        await self._keyspace.put(_key(token), orjson.dumps(unstructure(grant)), expect=0, ttl_seconds=ttl_seconds)
        return token

    async def check(self, token: str) -> None:
        """Raises UnauthorizedError: it could not be redeemed now."""
        await self._entry_of(token)

    async def redeem(self, token: str) -> Grant:
        """Exchange the token, once.

        Raises:
            UnauthorizedError: unknown, expired or used; which of these is not told.
        """
        entry = await self._entry_of(token)
        try:
            await self._keyspace.delete(entry.key, expect=entry.mod_revision)
        except (ConflictError, NotFoundError):  # another client was faster
            raise _not_good() from None
        return structure(orjson.loads(entry.value), Grant)

    async def _entry_of(self, token: str) -> Entry:
        entry = await self._keyspace.get(_key(token)) if token.startswith(GRANT_PREFIX) else None
        if entry is None:
            raise _not_good()
        return entry


def _not_good() -> UnauthorizedError:
    return UnauthorizedError("the token is unknown, expired, or was used", hint="get a new one: nanocloud token")


def _key(token: str) -> tuple[str, str]:
    return "tokens", hashlib.sha256(token.encode()).hexdigest()


@attrs.frozen
class BearerTokens:
    """Signs and verifies bearer tokens."""

    key: bytes = attrs.field(repr=False)
    clock: Callable[[], float] = wall_clock

    def sign(self, grant: Grant, *, ttl_seconds: float = BEARER_TTL_SECONDS) -> str:
        now = self.clock()
        claims = {"iss": _ISSUER, "sub": grant.user, "groups": grant.groups, "iat": now, "exp": now + ttl_seconds}
        return jwt.encode(claims, self.key, algorithm="HS256")

    def verify(self, token: str) -> Grant:
        """Raises UnauthorizedError: not ours, changed, or expired."""
        try:
            claims = jwt.decode(
                token, self.key, algorithms=["HS256"], issuer=_ISSUER, options={"require": ["sub", "exp", "iss"]}
            )
            return structure({"user": claims["sub"], "groups": claims.get("groups", [])}, Grant)
        except jwt.DecodeError:  # no token at all, or signed by another key
            why = "it is none that this node gave"
        except (jwt.InvalidTokenError, ValueError) as exc:
            why = str(exc)
        raise UnauthorizedError(f"the bearer token does not hold: {why}", hint="get a new one: nanocloud token")
