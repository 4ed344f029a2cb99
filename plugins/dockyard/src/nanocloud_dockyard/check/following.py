"""Waiting for objects of the API by watching them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

from nanocloud.client.api import Api, ApiError

Object = dict[str, Any]
_NOT_FOUND = 404


def find(server: Api, path: str) -> Object | None:
    try:
        found: Object = server.request("GET", path)
    except ApiError as exc:
        if exc.code != _NOT_FOUND:
            raise
        return None
    return found


def follow(
    server: Api, collection: str, name: str, holds: Callable[[Object | None], bool], *, seconds: float
) -> tuple[Object | None, bool]:
    """Watch one object until ``holds`` of it, None standing for one that is not there.

    Returns:
        Its last state, and whether it holds; False where the time was over first.
    """
    page = server.request("GET", collection)
    found = next((item for item in page["items"] if item["metadata"]["name"] == name), None)
    if holds(found):
        return found, True
    query = {
        "resourceVersion": page["metadata"]["resourceVersion"],
        "fieldSelector": f"metadata.name={name}",
        "timeoutSeconds": str(max(1, round(seconds))),
    }
    deadline = time.monotonic() + seconds
    with closing(server.watch(collection, query=query)) as changes:
        for kind, obj in changes:
            found = None if kind == "DELETED" else obj
            if holds(found):
                return found, True
            if time.monotonic() > deadline:
                break
    return found, False


def condition(obj: Mapping[str, Any] | None, kind: str) -> bool:
    """Whether a condition is True, in the object's present generation."""
    status = (obj or {}).get("status") or {}
    if obj is None or status.get("observedGeneration", 0) < obj["metadata"].get("generation", 1):
        return False
    return any(c["type"] == kind and c["status"] == "True" for c in status.get("conditions") or [])
