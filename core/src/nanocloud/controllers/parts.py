"""What the controllers work with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from nanocloud.controllers.planner import Planner
    from nanocloud.controllers.profiles import ProfileStore
    from nanocloud.controllers.uninstall import Uninstaller
    from nanocloud.errors import NanocloudError
    from nanocloud.identity.authority import CertificateAuthority
    from nanocloud.objects import EventRecorder, ObjectStore
    from nanocloud.secrets import Envelope


@attrs.frozen(kw_only=True)
class ControllerParts:
    store: ObjectStore
    events: EventRecorder
    profiles: ProfileStore
    planner: Planner
    uninstaller: Uninstaller
    authority: CertificateAuthority
    envelope: Envelope
    binding_provider: str
    """Name of the provider that new Bindings ask for."""
    unfit: NanocloudError | None = None
    """Why this node cannot run services, if it cannot."""
