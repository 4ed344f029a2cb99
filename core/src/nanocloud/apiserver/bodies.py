"""Request bodies: bounded reading, and the forms that are understood."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import orjson
import trio
from starlette.requests import ClientDisconnect

from nanocloud.apiserver import protobuf
from nanocloud.apiserver.status import UnsupportedMediaTypeError
from nanocloud.errors import BadRequestError, LimitExceededError
from nanocloud.models.manifest import load_yaml

if TYPE_CHECKING:
    from starlette.requests import Request

MAX_BODY_BYTES = 3 * 1024 * 1024
BODY_SECONDS = 60
_YAML = ("application/yaml", "application/x-yaml", "text/yaml")


def content_type(request: Request) -> str:
    """Without parameters; JSON where there is none, for some clients send none."""
    header: str = request.headers.get("content-type", "")
    return header.partition(";")[0].strip().lower() or "application/json"


async def read_bytes(request: Request) -> bytes:
    """The whole body.

    Raises:
        LimitExceededError: more than 3 MiB.
        BadRequestError: it does not arrive within a minute, or the client leaves before.
    """
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced) > MAX_BODY_BYTES:
        raise _too_large()
    body = bytearray()
    with trio.move_on_after(BODY_SECONDS):
        try:
            async with aclosing(request.stream()) as chunks:
                async for chunk in chunks:
                    body += chunk
                    if len(body) > MAX_BODY_BYTES:
                        raise _too_large()
        except ClientDisconnect:
            raise BadRequestError("the client left before its request body had arrived") from None
        return bytes(body)
    raise BadRequestError(f"the request body did not arrive within {BODY_SECONDS} s")


def _too_large() -> LimitExceededError:
    return LimitExceededError(f"the request body is larger than {MAX_BODY_BYTES} bytes")


async def read_object(request: Request) -> dict[str, Any]:
    """The object that the client sent, whatever form it took.

    Raises:
        BadRequestError, UnsupportedMediaTypeError, LimitExceededError
    """
    kind, body = content_type(request), await read_bytes(request)
    if kind == protobuf.MEDIA_TYPE:
        return protobuf.decode(body)
    if kind in _YAML:
        return as_object(parse_yaml(body))
    if kind == "application/json":
        return as_object(parse_json(body))
    accepted = ", ".join(("application/json", "application/yaml", protobuf.MEDIA_TYPE))
    raise UnsupportedMediaTypeError(
        f"the body of the request was in an unknown format - accepted media types include: {accepted}"
    )


def parse_json(body: bytes) -> Any:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise BadRequestError(f"the object provided is no valid JSON: {exc}") from exc
    _check_storable(value)
    return value


def parse_yaml(body: bytes) -> Any:
    documents = load_yaml(body)
    if len(documents) != 1:
        raise BadRequestError(f"the body has {len(documents)} YAML documents; exactly one is expected")
    _check_storable(documents[0])
    return documents[0]


def _check_storable(value: Any) -> None:
    """Refuses what is nested so deep that later recursion would hurt, and numbers that JSON readers would change."""
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError as exc:
        raise BadRequestError(
            f"the object provided cannot be stored: {exc}; at most 250 levels and 64-bit numbers"
        ) from exc


def as_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadRequestError("the request body must be an object")
    return value
