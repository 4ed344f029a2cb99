"""How callers prove who they are: client certificates of the node's CA, bearer tokens, single-use grants.

A grant is good for one thing: to be exchanged at ``/apis/nanocloud.io/v1/certificates``. It is looked at there, so that
asking for anything else with it does not use it up.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import attrs
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nanocloud.apiserver.auth import AUTHENTICATED, MastersAuthorizer, User
from nanocloud.errors import UnauthorizedError
from nanocloud.identity.tokens import GRANT_PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nanocloud.apiserver.paths import Target
    from nanocloud.identity.tokens import BearerTokens

GRANT_HOLDERS = "nanocloud:grant-holders"
EXCHANGE_PATH = "/apis/nanocloud.io/v1/certificates"


def bearer_of(scope: Mapping[str, Any]) -> str | None:
    """The token of an ``Authorization: Bearer`` header."""
    for name, value in scope.get("headers", ()):
        if name == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            return token.strip() if scheme.lower() == "bearer" else None
    return None


@attrs.frozen
class NodeAuthenticator:
    """Certificates were verified by TLS, when the connection began; here they are only read, each once."""

    tokens: BearerTokens

    async def authenticate(self, scope: Mapping[str, Any]) -> User | None:
        if token := bearer_of(scope):
            return self._by_token(token, scope["path"])
        der = (scope.get("state", {}).get("tls") or {}).get("der")
        return _by_certificate(der) if der else None

    def _by_token(self, token: str, path: str) -> User:
        if token.startswith(GRANT_PREFIX):
            if path.rstrip("/") == EXCHANGE_PATH:
                return User(name="nanocloud:grant", groups=frozenset({GRANT_HOLDERS}))
            raise UnauthorizedError("a single-use token is exchanged first", hint="run: nanocloud config --token TOKEN")
        grant = self.tokens.verify(token)
        return User(name=grant.user, groups=frozenset({*grant.groups, AUTHENTICATED}))


@functools.lru_cache(maxsize=256)
def _by_certificate(der: bytes) -> User:
    certificate = x509.load_der_x509_certificate(der)
    if ExtendedKeyUsageOID.SERVER_AUTH in _usages(certificate):
        # Services have certificates of the same authority for talking to each other; their names are no users.
        raise UnauthorizedError("the client certificate belongs to a service")
    subject = certificate.subject
    names = [str(a.value) for a in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = [str(a.value) for a in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    if not names:
        raise UnauthorizedError("the client certificate names no user (common name)")
    return User(name=names[0], groups=frozenset({*groups, AUTHENTICATED}))


def _usages(certificate: x509.Certificate) -> frozenset[x509.ObjectIdentifier]:
    try:
        return frozenset(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return frozenset()


class NodeAuthorizer(MastersAuthorizer):
    """Grant holders may exchange their grant; the rest as the base class says."""

    async def permits(self, user: User, verb: str, target: Target | None, path: str) -> bool:
        if GRANT_HOLDERS in user.groups:
            return path.rstrip("/") == EXCHANGE_PATH
        return await super().permits(user, verb, target, path)
