"""Which form an answer takes, by the Accept header, and the small reading of query parameters."""

from __future__ import annotations

import enum
import functools
from typing import TYPE_CHECKING

import attrs

from nanocloud.apiserver.status import NotAcceptableError
from nanocloud.errors import BadRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.datastructures import QueryParams
    from starlette.requests import Request

JSON, YAML = "application/json", "application/yaml"
_KEPT_CHARACTERS = 512
_ANY = ("*/*", "application/*")


class Shape(enum.Enum):
    OBJECT = "object"
    TABLE = "Table"
    PARTIAL = "PartialObjectMetadata"
    PARTIAL_LIST = "PartialObjectMetadataList"
    DISCOVERY = "APIGroupDiscoveryList"


@attrs.frozen
class Form:
    """How to write an answer."""

    media_type: str = JSON
    shape: Shape = Shape.OBJECT
    version: str = ""
    """Of the shape's group, where the client asked for a shape."""

    @property
    def is_plain(self) -> bool:
        """Objects as they are, as JSON."""
        return self.media_type == JSON and self.shape is Shape.OBJECT

    @property
    def is_yaml(self) -> bool:
        return self.media_type == YAML


def form_of(request: Request, shapes: tuple[Shape, ...] = ()) -> Form:
    """How to answer it; see ``accepted``."""
    # Its own mapping of the headers would cost more than all else here.
    header = next((value for name, value in request.scope["headers"] if name == b"accept"), None)
    return accepted(header.decode("latin-1") if header else None, shapes)


def accepted(header: str | None, shapes: tuple[Shape, ...] = ()) -> Form:
    """The first form of the header that can be served; JSON where there is no header.

    Args:
        shapes: forms besides plain objects that this path has.

    Raises:
        NotAcceptableError: none can be served.
    """
    if not header or not header.strip():
        return Form()
    return (_accepted if len(header) <= _KEPT_CHARACTERS else _accepted.__wrapped__)(header, shapes)


@functools.lru_cache(maxsize=64)  # a client says the same every time
def _accepted(header: str, shapes: tuple[Shape, ...]) -> Form:
    for choice in _by_quality(header):
        media, parameters = choice
        if media not in (JSON, YAML, "application/x-yaml", "text/yaml", *_ANY):
            continue
        media = JSON if media == JSON or media in _ANY else YAML
        shape = parameters.get("as")
        if shape is None:
            return Form(media)
        version = parameters.get("v", "")
        if version in ("v1", "v1beta1", "v2", "v2beta1") and any(shape == known.value for known in shapes):
            return Form(media, Shape(shape), version)
    raise NotAcceptableError(f"only the following media types are accepted: {JSON}, {YAML}")


def _by_quality(header: str) -> list[tuple[str, dict[str, str]]]:
    found: list[tuple[float, str, dict[str, str]]] = []
    for part in header.split(",")[:32]:
        media, *rest = (piece.strip() for piece in part.split(";"))
        parameters = dict(piece.split("=", 1) for piece in rest if "=" in piece)
        try:
            quality = float(parameters.pop("q", "1"))
        except ValueError:
            quality = 0.0
        if quality > 0:
            found.append((-quality, media.lower(), parameters))
    return [(media, parameters) for _, media, parameters in sorted(found, key=lambda entry: entry[0])]


def flag(query: Mapping[str, str] | QueryParams, name: str) -> bool:
    """A boolean parameter; present and empty is true, as Kubernetes reads it."""
    value = query.get(name)
    if value is None:
        return False
    if value.lower() in ("", "true", "1", "t"):
        return True
    if value.lower() in ("false", "0", "f"):
        return False
    raise BadRequestError(f"{name} is {value[:80]!r}; it must be true or false")


def number(query: Mapping[str, str] | QueryParams, name: str, *, minimum: int = 0) -> int | None:
    """A whole number; None where it is absent or empty."""
    value = query.get(name)
    if not value:
        return None
    if not (value.removeprefix("-").isascii() and value.removeprefix("-").isdigit()) or len(value) > 19:
        raise BadRequestError(f"{name} is {value[:80]!r}; it must be a whole number")
    if int(value) < minimum:
        raise BadRequestError(f"{name} is {value}; it must be at least {minimum}")
    return int(value)


def dry_run(query: Mapping[str, str] | QueryParams) -> bool:
    value = query.get("dryRun")
    if value in (None, "", "All"):
        return value == "All"
    raise BadRequestError(f'dryRun is {value[:80]!r}; the only value is "All"')
