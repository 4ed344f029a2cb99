"""The catalogue: which services can be installed, and what each says about itself.

``GET .../catalogue`` lists them, ``GET .../catalogue/{service}`` describes one: its options as JSON Schema, so that
forms and prompts need no other source, the services it can select, what it exports. ``POST .../catalogue`` with
``{"spec": {"image": REFERENCE}}`` describes any image; it asks registries, so it is for those who may install.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import attrs
from starlette.responses import JSONResponse
from starlette.routing import Route

from nanocloud.apiserver.exchange import API_VERSION, read_json
from nanocloud.errors import ImageError, InvalidError, NotFoundError
from nanocloud.models.converter import structure
from nanocloud.planning.catalogue import describe_image

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from nanocloud.images import ImageSources
    from nanocloud.providers.image import CatalogEntry

PATH = "/apis/nanocloud.io/v1/catalogue"


@attrs.frozen(kw_only=True)
class ImageSpec:
    image: str


@attrs.frozen(kw_only=True)
class Catalogue:
    images: ImageSources

    def routes(self) -> list[Route]:
        return [
            Route(PATH, self._list, methods=["GET"]),
            Route(PATH, self._describe, methods=["POST"]),
            Route(f"{PATH}/{{service}}", self._get, methods=["GET"]),
        ]

    async def _list(self, request: Request) -> Response:
        items = [_item(entry) for entry in await self._entries()]
        return JSONResponse({"apiVersion": API_VERSION, "kind": "CatalogueServiceList", "items": items})

    async def _get(self, request: Request) -> Response:
        service = request.path_params["service"]
        entries = {entry.service: entry for entry in await self._entries()}
        if service not in entries:
            near = difflib.get_close_matches(service, entries, n=3, cutoff=0.5)
            names = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(entries) or 'none at all'}"
            raise NotFoundError(f"the catalogue has no service {service[:80]!r}; {names}")
        entry = entries[service]
        try:
            image = await self.images.resolve(service)
        except (NotFoundError, ImageError):
            if entry.built or not entry.labels:
                raise  # the image is here and broken, or nobody else can tell
            described: dict[str, Any] = {"digest": None, **describe_image(entry.labels)}
        else:
            described = {"digest": image.digest, **describe_image(image.config.labels)}
        found = _item(entry)
        return JSONResponse({"apiVersion": API_VERSION, **found, "status": {**found["status"], **described}})

    async def _describe(self, request: Request) -> Response:
        body = await read_json(request)
        spec = structure(body.get("spec", {}) if isinstance(body, dict) else body, ImageSpec, path="spec", what="image")
        if not spec.image:
            raise InvalidError("spec.image is empty; it must be an image reference")
        image = await self.images.resolve(spec.image)
        described = {"image": image.reference, "digest": image.digest, **describe_image(image.config.labels)}
        return JSONResponse({"apiVersion": API_VERSION, "kind": "CatalogueService", "status": described})

    async def _entries(self) -> list[CatalogEntry]:
        """By name; where two providers have a service, the one that is asked first."""
        found: dict[str, CatalogEntry] = {}
        for entry in await self.images.catalog():
            found.setdefault(entry.service, entry)
        return [found[service] for service in sorted(found)]


def _item(entry: CatalogEntry) -> dict[str, Any]:
    return {
        "kind": "CatalogueService",
        "metadata": {"name": entry.service},
        "status": {"description": entry.description, "image": entry.reference, "built": entry.built},
    }
