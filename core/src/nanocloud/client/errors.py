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


def unreachable(server: str, exc: Exception) -> UnreachableError:
    """Why nobody answers at ``server``, in words, and what to do."""
    import ssl  # here already where an exception is one of its own

    if isinstance(exc, ssl.SSLCertVerificationError):
        return UnreachableError(
            f"{server} shows a certificate that is not this node's: {exc.verify_message}",
            hint="the kubeconfig belongs to another node, or the name is not in the certificate",
        )
    if isinstance(exc, ssl.SSLError):
        return UnreachableError(f"{server} refuses these credentials: {exc.reason or exc}")
    if isinstance(exc, ConnectionRefusedError):
        return UnreachableError(f"nothing listens at {server}", hint="start it with: sudo nanocloud server")
    return UnreachableError(f"{server} does not answer: {exc}")
