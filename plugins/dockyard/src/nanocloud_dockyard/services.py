"""Where a service of the catalogue comes from: an image built here, or the configured registry."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from nanocloud.errors import NotFoundError
from nanocloud.providers.image import CatalogEntry
from nanocloud_dockyard import recipes
from nanocloud_dockyard.layout_writer import published
from nanocloud_dockyard.reference import RegistryReference, parse_reference

if TYPE_CHECKING:
    from pathlib import Path


def registry_reference(registry: str | None, service: str) -> RegistryReference | None:
    """``<registry>/<service>``, if a registry is configured."""
    if registry is None:
        return None
    parsed = parse_reference(f"{registry}/{service}")
    assert isinstance(parsed, RegistryReference)  # the settings checked it
    return parsed


def entries(layout: Path, registry: str | None) -> list[CatalogEntry]:
    """Every recipe, and what was built here without one. Blocks."""
    built = published(layout)
    known = recipes.services()
    return [_entry(service, layout, registry, built=service in built) for service in sorted({*known, *built})]


def _entry(service: str, layout: Path, registry: str | None, *, built: bool) -> CatalogEntry:
    remote = registry_reference(registry, service)
    reference = f"oci:{layout}:{service}" if built else str(remote or service)
    try:
        recipe = recipes.load(service)
    except NotFoundError:
        description = "built here; this version of Nanocloud has no recipe for it"
        return CatalogEntry(service=service, reference=reference, description=description, built=built)
    return CatalogEntry(
        service=service, reference=reference, description=recipe.description, built=built, labels=recipe.labels
    )


def missing(service: str, registry: str | None, *, layout: Path | None = None) -> NotFoundError:
    """Why there is no image of ``service``, and what to do; names what ``layout`` holds besides the recipes. Blocks."""
    known = recipes.services()
    if service in known:
        elsewhere = f", nor has {registry} one" if registry else ""
        return NotFoundError(
            f"service {service!r} has no image on this node{elsewhere}",
            hint=f"build it: nanocloud dockyard build {service}",
        )
    known = sorted({*known, *(published(layout) if layout else ())})
    near = difflib.get_close_matches(service, known, n=3, cutoff=0.5)
    names = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(known)}"
    return NotFoundError(f"the catalogue has no service {service!r}; {names}")
