"""What the API server is built from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs
from starlette.routing import BaseRoute

from nanocloud.apiserver.auth import Authenticator, Authorizer, MastersAuthorizer
from nanocloud.apiserver.pods import PodAccess
from nanocloud.controllers.transfer import ProfileTransfer
from nanocloud.extension import Admission
from nanocloud.objects import ObjectStore


@attrs.frozen(kw_only=True)
class ApiContext:
    """Handed to ``build_app`` by the node."""

    store: ObjectStore
    authenticator: Authenticator
    authorizer: Authorizer = attrs.field(factory=MastersAuthorizer)
    pods: PodAccess | None = None
    """None: there is no kubelet; logs and exec answer 503."""
    transfer: ProfileTransfer | None = None
    """None: profiles are not exported or imported here; both answer 503."""
    admission: Sequence[Admission] = ()
    routes: Sequence[BaseRoute] = ()
    """Asked before the generic paths. The caller is ``request.user``; the authorizer has let the path pass."""
    open_paths: frozenset[str] = frozenset()
    """Paths of ``routes`` that authenticate their callers themselves."""
    checks: Mapping[str, Callable[[], str | None]] = attrs.field(factory=dict)
    """What ``/readyz`` asks, by name: None is ready, a text says what is missing."""
