"""What every part of the kubelet works with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nanocloud.images import ImageSources
    from nanocloud.objects import EventRecorder, ObjectStore
    from nanocloud.providers.binding import BindingProvider
    from nanocloud.providers.network import NetworkProvider
    from nanocloud.providers.runtime import RuntimeProvider
    from nanocloud.providers.volume import VolumeProvider


@attrs.frozen(kw_only=True)
class KubeletParts:
    store: ObjectStore
    events: EventRecorder
    images: ImageSources
    runtime: RuntimeProvider
    network: NetworkProvider
    volume: VolumeProvider
    binding: BindingProvider
    logs: Path
    """Folder of container logs."""
    clock: Callable[[], float]
    """Seconds since the epoch."""
