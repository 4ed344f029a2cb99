"""Where the API keeps what commands ask for. Imports nothing."""

from __future__ import annotations

_BUNDLES = "/apis/nanocloud.io/v1"
CATALOGUE_PATH = f"{_BUNDLES}/catalogue"


def bundles_path(namespace: str | None, name: str | None = None, *more: str) -> str:
    """The path of bundles of a namespace (None: of all), or of one of them."""
    path = _BUNDLES + (f"/namespaces/{namespace}" if namespace else "") + "/bundles"
    return "/".join([path, *([name] if name else []), *more])


def core_path(namespace: str | None, plural: str, *more: str) -> str:
    return "/".join(["/api/v1" + (f"/namespaces/{namespace}" if namespace else ""), plural, *more])
