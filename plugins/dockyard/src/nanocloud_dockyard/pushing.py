"""``nanocloud dockyard push``: from the words of the command to a push, shown as it goes."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import attrs
import trio

from nanocloud.errors import NotFoundError, UsageError
from nanocloud_dockyard import services
from nanocloud_dockyard.layout_writer import published
from nanocloud_dockyard.push import Push
from nanocloud_dockyard.reference import Reference, RegistryReference, ServiceReference, parse_reference
from nanocloud_dockyard.retry import Backoff
from nanocloud_dockyard.settings import DockyardConfig
from nanocloud_dockyard.sources import Sources
from nanocloud_dockyard.upload import RegistryTarget

if TYPE_CHECKING:
    from pathlib import Path
    from typing import TextIO

    from nanocloud.config import NodeConfig
    from nanocloud.providers.image import Digest

_SHOWN_SECONDS = 0.1


def push_image(config: NodeConfig, image: str, target: str) -> str:
    """Push ``image`` to ``target``; returns the reference that names exactly what was pushed.

    Raises:
        UsageError, InvalidError: words that name no image or no place in a registry.
        NanocloudError: what went wrong on the way.
    """
    source, place = parse_reference(image), parse_reference(target)
    if not isinstance(place, RegistryReference) or place.digest:
        raise UsageError(f"{target!r} is not REGISTRY/REPO[:TAG]: a host with a dot or a port, a name, a tag")
    settings = config.section("dockyard", DockyardConfig)
    layout = config.state_dir / "images" / "layout"
    digest = trio.run(_push, settings, layout, source, place, Shown(sys.stderr))
    return f"{place.host}/{place.repository}:{place.tag}@{digest}"


async def _push(
    settings: DockyardConfig, layout: Path, reference: Reference, place: RegistryReference, shown: Shown
) -> Digest:
    async with Sources(settings, layout) as sources:
        target = RegistryTarget(sources.transport(), place, Backoff())
        *others, last = sources.of(reference)
        for source in (*others, last):
            pushing = Push(source, target, progress=shown, parallel_blobs=settings.parallel_layers)
            try:
                return await pushing.run(reference.digest, place.tag or "latest")
            except NotFoundError:
                if source is not last:
                    continue
                if isinstance(reference, ServiceReference) and reference.service not in published(layout):
                    raise services.missing(reference.service, settings.registry, layout=layout) from None
                raise
            finally:
                shown.close()
    raise AssertionError("there is a last source")


@attrs.define
class Shown:
    """A line for each blob that is done; on a terminal also one that says how far the others are."""

    stream: TextIO
    _under_way: dict[Digest, tuple[int, int]] = attrs.field(factory=dict, init=False)
    _next: float = attrs.field(default=0.0, init=False)
    _drawn: bool = attrs.field(default=False, init=False)

    def __call__(self, *, blob: Digest, done_bytes: int, total_bytes: int, skipped: bool) -> None:
        if done_bytes < total_bytes:
            self._under_way[blob] = done_bytes, total_bytes
            self._draw()
            return
        self._under_way.pop(blob, None)
        self._clear()
        what = "is there already" if skipped else "pushed"
        print(f"{blob.removeprefix('sha256:')[:12]}: {what}, {_megabytes(total_bytes)}", file=self.stream, flush=True)

    def close(self) -> None:
        self._clear()

    def _draw(self) -> None:
        if not self.stream.isatty() or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _SHOWN_SECONDS
        done, total = (sum(numbers) for numbers in zip(*self._under_way.values(), strict=True))
        print(f"\r\x1b[K{_megabytes(done)} of {_megabytes(total)}", end="", file=self.stream, flush=True)
        self._drawn = True

    def _clear(self) -> None:
        if self._drawn:
            print("\r\x1b[K", end="", file=self.stream, flush=True)
            self._drawn = False


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
