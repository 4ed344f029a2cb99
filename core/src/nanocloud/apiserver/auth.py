"""Who asks, and whether they may.

Who: an ``Authenticator``, which the identity of the node implements, reads the client certificate of the TLS
connection (DER, in ``scope["state"]["tls"]``) or the bearer token. May: an ``Authorizer``; the one here lets members
of ``system:masters`` do everything and everyone who is known read what the API offers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from nanocloud.errors import ForbiddenError, UnauthorizedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from starlette.types import ASGIApp, Receive, Scope, Send

    from nanocloud.apiserver.paths import Target

MASTERS = "system:masters"
AUTHENTICATED, UNAUTHENTICATED = "system:authenticated", "system:unauthenticated"
_OPEN_PATHS = frozenset({"/healthz", "/livez", "/readyz", "/version"})
_READING = ("GET", "HEAD", "OPTIONS")


@attrs.frozen(kw_only=True)
class User:
    """A caller. ``scopes`` limit a token; None is without limit."""

    name: str
    groups: frozenset[str] = frozenset()
    scopes: frozenset[str] | None = None

    # What Starlette asks of ``request.user``.
    @property
    def is_authenticated(self) -> bool:
        return UNAUTHENTICATED not in self.groups

    @property
    def display_name(self) -> str:
        return self.name


ANONYMOUS = User(name="system:anonymous", groups=frozenset({UNAUTHENTICATED}))


class Authenticator(Protocol):
    """Turns credentials into a user."""

    async def authenticate(self, scope: Mapping[str, Any]) -> User | None:
        """The user of a connection and its headers; None where there are no credentials.

        Raises:
            UnauthorizedError: there are, and they are not good.
        """


class Authorizer(Protocol):
    async def permits(self, user: User, verb: str, target: Target | None, path: str) -> bool:
        """Whether the user may. ``target`` is None for paths that are no resources (discovery, extra routes)."""


class MastersAuthorizer:
    """``system:masters`` may do everything; everyone known may read discovery and schemas."""

    async def permits(self, user: User, verb: str, target: Target | None, path: str) -> bool:
        if MASTERS in user.groups:
            return True
        return target is None and verb == "get" and path.startswith(("/api", "/openapi", "/version"))


class Authentication:
    """ASGI middleware: ``scope["user"]`` is the caller. Anonymous callers reach the health paths only."""

    def __init__(self, app: ASGIApp, authenticator: Authenticator, *, open_paths: frozenset[str] = frozenset()) -> None:
        self._app, self._authenticator = app, authenticator
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            # A path that authenticates its callers itself may get credentials that only it can read.
            is_own = scope["path"] in self._open_paths
            if not is_own and (scope["type"] == "websocket" or scope["method"] not in _READING):
                refuse_other_sites(scope)
            user = None if is_own else await self._authenticator.authenticate(scope)
            if user is None:
                if not is_own and scope["path"].rstrip("/") not in _OPEN_PATHS:
                    raise UnauthorizedError("Unauthorized")
                user = ANONYMOUS
            scope["user"] = user
        await self._app(scope, receive, send)


def refuse_other_sites(scope: Mapping[str, Any]) -> None:
    """A browser shows the client certificate to the requests of any page; a token it does not add by itself. Programs
    that are no browsers name no site.

    Raises:
        ForbiddenError: a page of another origin asks.

    Source: Fetch Metadata Request Headers, "Sec-Fetch-Site"; RFC 6455, section 10.2; RFC 6454, section 7.
    """
    fields: dict[bytes, bytes] = dict(scope["headers"])
    site, origin = fields.get(b"sec-fetch-site"), fields.get(b"origin")
    has_token = fields.get(b"authorization", b"").lower().startswith(b"bearer ")
    if has_token or (site is None and origin is None):
        return
    if site is not None:
        is_ours = site in (b"same-origin", b"none")
    else:
        is_ours = (origin or b"").partition(b"://")[2].lower() == fields.get(b"host", b"").lower()
    if not is_ours:
        raise ForbiddenError("forbidden: a page of another site may not use this browser's client certificate")


async def authorize(authorizer: Authorizer, user: User, verb: str, target: Target | None, path: str) -> None:
    """Raises ForbiddenError: names the user, the verb and the resource, as Kubernetes words it."""
    if await authorizer.permits(user, verb, target, path):
        return
    if target is None:
        raise ForbiddenError(f'forbidden: User "{user.name}" cannot {verb} path "{path}"')
    where = f' in the namespace "{target.namespace}"' if target.namespace else " at the cluster scope"
    named = (
        f'{target.kind.resource} "{target.name}" is forbidden'
        if target.name
        else f"{target.kind.resource} is forbidden"
    )
    resource = f"{target.kind.plural}/{target.subresource}" if target.subresource else target.kind.plural
    raise ForbiddenError(
        f'{named}: User "{user.name}" cannot {verb} resource "{resource}" in API group "{target.kind.group}"{where}'
    )
