"""What the node gives to plugins' controllers, routes and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from nanocloud.config import NodeConfig
    from nanocloud.images import ImageSources
    from nanocloud.keyspace import Keyspace
    from nanocloud.objects import EventRecorder, ObjectStore


@attrs.frozen(kw_only=True)
class NodeContext:
    """The open node: everything here works until the plugin's worker is cancelled."""

    config: NodeConfig
    keyspace: Keyspace
    store: ObjectStore
    events: EventRecorder
    images: ImageSources
