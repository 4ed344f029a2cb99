"""From a reference to the places where its image can be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nanocloud_dockyard import services
from nanocloud_dockyard.archive import ArchiveFiles
from nanocloud_dockyard.layout import LayoutSource
from nanocloud_dockyard.reference import LayoutReference, Reference, RegistryReference

if TYPE_CHECKING:
    from nanocloud_dockyard.retry import Backoff
    from nanocloud_dockyard.settings import DockyardConfig
    from nanocloud_dockyard.source import Source
    from nanocloud_dockyard.transport import Transport


class Sources:
    """Finds sources, and holds the connections to registries. Use as an async context manager."""

    def __init__(self, config: DockyardConfig, layout: Path, backoff: Backoff | None = None) -> None:
        self._config, self._layout, self._backoff = config, layout, backoff
        self._transport: Transport | None = None

    async def __aenter__(self) -> Sources:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._transport is not None:
            await self._transport.__aexit__()
            self._transport = None

    def of(self, reference: Reference) -> list[Source]:
        """In the order in which to ask; a service is built here, or comes from the configured registry."""
        if isinstance(reference, LayoutReference):
            path = Path(reference.path)
            return [LayoutSource(ArchiveFiles(path) if reference.archive else path, reference.tag)]
        if isinstance(reference, RegistryReference):
            return [self._registry(reference)]
        built: list[Source] = [LayoutSource(self._layout, reference.service)]
        remote = services.registry_reference(self._config.registry, reference.service)
        return [*built, self._registry(remote)] if remote else built

    def transport(self) -> Transport:
        # The HTTP client takes a tenth of a second to import; a node with built images never needs it.
        from nanocloud_dockyard.transport import Transport

        if self._transport is None:
            self._transport = Transport(self._config)
        return self._transport

    def _registry(self, reference: RegistryReference) -> Source:
        from nanocloud_dockyard.registry import RegistrySource
        from nanocloud_dockyard.retry import Backoff

        settings = self._config.registries.get(reference.host)
        mirrors = settings.mirrors if settings else ()
        return RegistrySource(self.transport(), reference, mirrors, self._backoff or Backoff())
