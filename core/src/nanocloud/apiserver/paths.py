"""Paths of the API: which resource a path means.

``/api/v1/...`` is the core group, ``/apis/<group>/<version>/...`` are the others; then
``[namespaces/<namespace>/]<plural>[/<name>[/<subresource>[/<more>]]]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from nanocloud.errors import BadRequestError, NotFoundError
from nanocloud.models.meta import is_dns_label

if TYPE_CHECKING:
    from nanocloud.models.kinds import KindRegistry, ResourceKind

_UNKNOWN = "the server could not find the requested resource"


@attrs.frozen
class Target:
    """What a request is about."""

    kind: ResourceKind
    namespace: str | None
    """None: the kind is cluster-scoped, or all namespaces are meant."""
    name: str | None
    subresource: str | None = None
    rest: str = ""
    """What follows the subresource."""

    @property
    def where(self) -> str:
        """The namespace as the store wants it."""
        return self.namespace or ""


def resolve(registry: KindRegistry, path: str) -> Target | tuple[str, ...]:
    """The resource of a path, or the parts of a discovery path: ``()`` for ``/api``, ``(group, version)``, ...

    Raises:
        NotFoundError: no resource of that path.
        BadRequestError: a namespace or a name that cannot be.
    """
    parts = path.strip("/").split("/")
    if parts[0] == "api":
        if len(parts) <= 2:
            return ("api", *parts[1:])
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis":
        if len(parts) <= 3:
            return ("apis", *parts[1:])
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        raise NotFoundError(_UNKNOWN)
    return _target(registry, group, version, rest)


def _target(registry: KindRegistry, group: str, version: str, rest: list[str]) -> Target:
    namespace: str | None = None
    # /namespaces/x/status is a subresource of the namespace, /namespaces/x/pods a collection in it.
    if rest[0] == "namespaces" and len(rest) >= 3 and not (rest[2] in ("status", "finalize") and len(rest) == 3):
        namespace, rest = rest[1], rest[2:]
        if not is_dns_label(namespace):
            raise BadRequestError(f"{namespace[:80]!r} is not a namespace: it must be an RFC 1123 label")
    kind = registry.by_path(group, version, rest[0])
    if namespace is not None and not kind.namespaced:
        raise NotFoundError(_UNKNOWN)
    name = rest[1] if len(rest) > 1 else None
    if name is not None and (
        not name or name in (".", "..") or "%" in name or len(name) > 253 or not name.isprintable()
    ):
        raise BadRequestError(f"{name[:80]!r} is not a name")
    if name is not None and kind.namespaced and namespace is None:
        raise NotFoundError(_UNKNOWN)
    subresource = rest[2] if len(rest) > 2 else None
    return Target(kind, namespace, name, subresource, "/".join(rest[3:]))
