"""Errors as clients see them: Kubernetes ``Status`` objects. The only place that maps a reason to an HTTP code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from starlette.responses import Response

from nanocloud.errors import (
    FutureRevisionError,
    InvalidError,
    NanocloudError,
)

if TYPE_CHECKING:
    from nanocloud.models.kinds import ResourceKind
    from nanocloud.models.meta import Object

CODES = {
    "BadRequest": 400,
    "Unauthorized": 401,
    "Forbidden": 403,
    "NotFound": 404,
    "MethodNotAllowed": 405,
    "NotAcceptable": 406,
    "AlreadyExists": 409,
    "Conflict": 409,
    "Gone": 410,
    "Expired": 410,
    "RequestEntityTooLarge": 413,
    "UnsupportedMediaType": 415,
    "Invalid": 422,
    "TooManyRequests": 429,
    "InternalError": 500,
    "ServiceUnavailable": 503,
    "Timeout": 504,
}


class MethodNotAllowedError(NanocloudError):
    """The path exists, the verb does not."""

    reason = "MethodNotAllowed"


class NotAcceptableError(NanocloudError):
    """No form of the answer that the client takes."""

    reason = "NotAcceptable"


class UnsupportedMediaTypeError(NanocloudError):
    """A body in a form that is not read here; the message lists those that are."""

    reason = "UnsupportedMediaType"


class ExpiredTokenError(NanocloudError):
    """A continue token whose revision is forgotten. ``fresh`` goes on from the same place in the present state."""

    reason = "Expired"

    def __init__(self, fresh: str) -> None:
        super().__init__(
            "The provided continue parameter is too old to display a consistent list result. "
            "You can start a new list without the continue parameter, or use the continue token in this response "
            "to retrieve the remainder of the results, which may be inconsistent with the pages before."
        )
        self.fresh = fresh


def status_of(exc: BaseException, *, kind: ResourceKind | None = None, name: str = "") -> Object:
    """The Status object of an error; what is no NanocloudError is an internal one and keeps its text to itself.

    Args:
        kind, name: what the request was about, where the error does not know better.
    """
    if not isinstance(exc, NanocloudError):
        return _status("InternalError", "Internal error occurred; the server's log says more", {})
    kind, name = getattr(exc, "kind", kind), getattr(exc, "name", name)
    details: dict[str, Any] = {}
    if kind is not None:
        details = {"name": name, "group": kind.group, "kind": kind.plural}
        if isinstance(exc, InvalidError):
            details["kind"] = kind.kind
        details = {key: value for key, value in details.items() if value}
    if isinstance(exc, InvalidError):
        details["causes"] = [{"reason": c.reason, "message": c.message, "field": c.field} for c in exc.causes[:100]]
    if isinstance(exc, FutureRevisionError):
        details |= {"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]}
        details["retryAfterSeconds"] = 1
    reason = exc.reason if exc.reason in CODES else "InternalError"
    message = f"{exc} ({exc.hint})" if exc.hint else str(exc)
    answer = _status(reason, message, details)
    if isinstance(exc, ExpiredTokenError):
        answer["metadata"]["continue"] = exc.fresh
    return answer


def _status(reason: str, message: str, details: dict[str, Any]) -> Object:
    answer: Object = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": CODES[reason],
    }
    return answer | ({"details": details} if details else {})


def success(kind: ResourceKind, obj: Object) -> Object:
    """The answer to a deletion that left nothing."""
    meta = obj["metadata"]
    details = {"name": meta["name"], "group": kind.group, "kind": kind.plural, "uid": meta["uid"]}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {key: value for key, value in details.items() if value},
    }


def error_response(exc: BaseException, *, kind: ResourceKind | None = None, name: str = "") -> Response:
    answer = status_of(exc, kind=kind, name=name)
    headers = {"WWW-Authenticate": "Bearer"} if answer["code"] == 401 else {}
    if isinstance(exc, FutureRevisionError):
        headers["Retry-After"] = "1"
    return Response(orjson.dumps(answer), answer["code"], headers, media_type="application/json")


def watch_error(exc: NanocloudError) -> Object:
    """How a watch says why it ends: the event inside an HTTP 200."""
    return {"type": "ERROR", "object": status_of(exc)}
