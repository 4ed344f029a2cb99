"""The kinds that core serves; plugins add theirs through ``nanocloud_api_resources``."""

from __future__ import annotations

from nanocloud.models.binding import BINDING
from nanocloud.models.bundle import BUNDLE
from nanocloud.models.core import CONFIG_MAP, EVENT, NAMESPACE, NODE, PERSISTENT_VOLUME_CLAIM, SECRET
from nanocloud.models.kinds import KindRegistry
from nanocloud.models.pod import POD

BUILTIN_KINDS = (
    NAMESPACE,
    NODE,
    CONFIG_MAP,
    SECRET,
    EVENT,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    BUNDLE,
    BINDING,
)


def builtin_registry() -> KindRegistry:
    return KindRegistry(BUILTIN_KINDS)
