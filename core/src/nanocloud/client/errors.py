"""How a request can end other than well. Light on imports: every command begins with this."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nanocloud.errors import NanocloudError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class ApiError(NanocloudError):
    """The server's answer was an error; ``code`` is the HTTP status, ``cause`` the Kubernetes Status."""

    def __init__(self, code: int, status: Mapping[str, Any], path: str) -> None:
        details = status.get("details") or {}
        super().__init__(str(status.get("message") or f"{path} answered {code}"), hint=str(details.get("hint") or ""))
        self.code, self.cause = code, status


class UnreachableError(NanocloudError):
    """The server does not answer."""


class CurlPrinted(Exception):  # noqa: N818  (not an error: the command ends well)
    """Raised instead of sending, once the equivalent curl command was printed."""
