"""Tokens and certificates: ``POST .../tokens`` makes a single-use grant, ``POST .../certificates`` exchanges one.

Request of certificates: ``{"spec": {"request": <PEM certificate request>}}`` for a client certificate, or
``{"spec": {"type": "bearer"}}`` for a bearer token. Whoever holds a grant becomes the grant's user; an administrator
names the ``user`` and ``groups``. Answers carry the result in ``status``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from starlette.responses import JSONResponse
from starlette.routing import Route

from nanocloud.apiserver.bodies import parse_json, read_bytes
from nanocloud.apiserver.credentials import EXCHANGE_PATH, GRANT_HOLDERS, bearer_of
from nanocloud.errors import InvalidError
from nanocloud.identity.tokens import GRANT_TTL_SECONDS, Grant
from nanocloud.models.converter import structure

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from nanocloud.identity.authority import CertificateAuthority
    from nanocloud.identity.tokens import BearerTokens, TokenStore

API_VERSION = "nanocloud.io/v1"
TOKENS_PATH = "/apis/nanocloud.io/v1/tokens"
_LONGEST_GRANT_SECONDS = 30 * 24 * 3600
_MOST_GROUPS = 64


@attrs.frozen(kw_only=True)
class CertificateSpec:
    request: str | None = None
    type: str = "certificate"
    user: str | None = None
    groups: list[str] = attrs.field(factory=list)


@attrs.frozen(kw_only=True)
class TokenSpec:
    user: str = "admin"
    groups: list[str] = attrs.field(factory=lambda: ["system:masters"])
    ttl_seconds: int = int(GRANT_TTL_SECONDS)


@attrs.frozen(kw_only=True)
class Exchange:
    authority: CertificateAuthority
    grants: TokenStore
    bearers: BearerTokens

    def routes(self) -> list[Route]:
        return [
            Route(EXCHANGE_PATH, self._certificate, methods=["POST"]),
            Route(TOKENS_PATH, self._token, methods=["POST"]),
        ]

    async def _token(self, request: Request) -> Response:
        spec = structure(await _spec(request), TokenSpec, path="spec", what="Token")
        if not 1 <= spec.ttl_seconds <= _LONGEST_GRANT_SECONDS:
            raise InvalidError(f"spec.ttlSeconds is {spec.ttl_seconds}; it must be 1 to {_LONGEST_GRANT_SECONDS}")
        grant = Grant(user=_user(spec.user), groups=_groups(spec.groups))
        token = await self.grants.create(grant, ttl_seconds=spec.ttl_seconds)
        return _answer("Token", {"token": token, "user": grant.user, "ttlSeconds": spec.ttl_seconds})

    async def _certificate(self, request: Request) -> Response:
        if GRANT_HOLDERS in request.user.groups:
            # Whatever looks like a grant comes this far. Who has none is a stranger, and a stranger's body is not read.
            await self.grants.check(bearer_of(request.scope) or "")
        spec = structure(await _spec(request), CertificateSpec, path="spec", what="Certificate")
        if spec.type not in ("certificate", "bearer"):
            raise InvalidError(f"spec.type is {spec.type!r}; allowed: certificate, bearer")
        if spec.type == "certificate" and not spec.request:
            raise InvalidError("spec.request is required: a PEM certificate request")
        if spec.request:
            # A bad request must not use the grant up: look at it first.
            self.authority.sign_request(spec.request.encode(), "check", [])
        grant = await self._grant(request, spec)
        status: dict[str, Any] = {"user": grant.user, "ca": self.authority.certificate.decode()}
        if spec.type == "bearer":
            status["token"] = self.bearers.sign(grant)
        else:
            assert spec.request is not None
            signed = self.authority.sign_request(spec.request.encode(), grant.user, grant.groups)
            status["certificate"] = signed.decode()
        return _answer("Certificate", status)

    async def _grant(self, request: Request, spec: CertificateSpec) -> Grant:
        if GRANT_HOLDERS in request.user.groups:
            return await self.grants.redeem(bearer_of(request.scope) or "")
        return Grant(user=_user(spec.user or request.user.name), groups=_groups(spec.groups))


def _user(name: str) -> str:
    if not 1 <= len(name) <= 64 or not name.isprintable():
        raise InvalidError(f"spec.user is {name[:70]!r}; it must be 1 to 64 printable characters")
    return name


def _groups(names: list[str]) -> list[str]:
    if len(names) > _MOST_GROUPS:
        raise InvalidError(f"spec.groups has {len(names)} entries; at most {_MOST_GROUPS} are allowed")
    for index, name in enumerate(names):
        if not 1 <= len(name) <= 64 or not name.isprintable():
            raise InvalidError(f"spec.groups[{index}] is {name[:70]!r}; it must be 1 to 64 printable characters")
    return names


async def _spec(request: Request) -> Any:
    body = await read_json(request)
    return body.get("spec", {}) if isinstance(body, dict) else body


async def read_json(request: Request) -> Any:
    """The body as JSON data; an empty one is an empty object.

    Raises:
        BadRequestError, LimitExceededError: not JSON, too large, or it does not arrive.
    """
    body = await read_bytes(request)
    return parse_json(body) if body else {}


def _answer(kind: str, status: dict[str, Any]) -> Response:
    return JSONResponse({"apiVersion": API_VERSION, "kind": kind, "status": status}, status_code=201)
