"""OpenAPI documents of the kinds: what kubectl validates, explains and merges by.

``/openapi/v3`` is an index of one document for each group version; documents are named by their hash and cached for
ever. kubectl asks for a PATCH operation of the kind that takes ``fieldValidation``; without one it refuses to create.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING, Any

import orjson
from starlette.responses import Response

from nanocloud import __version__
from nanocloud.errors import NotFoundError
from nanocloud.models.kinds import OBJECT_META

if TYPE_CHECKING:
    from starlette.requests import Request

    from nanocloud.models.kinds import KindRegistry, ResourceKind
    from nanocloud.models.meta import Object

_META_NAME = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_LIST_META = {"type": "object", "properties": {"resourceVersion": {"type": "string"}, "continue": {"type": "string"}}}


def schema_name(kind: ResourceKind) -> str:
    """As Kubernetes names definitions: ``io.k8s.api.core.v1.Pod``, ``io.nanocloud.v1.Bundle``."""
    if kind.group and "." in kind.group and not kind.group.endswith(".k8s.io"):
        return ".".join([*reversed(kind.group.split(".")), kind.version, kind.kind])
    return f"io.k8s.api.{(kind.group or 'core').split('.')[0]}.{kind.version}.{kind.kind}"


class OpenApi:
    """The documents of a registry, made when they are first asked for."""

    def __init__(self, registry: KindRegistry) -> None:
        self._registry = registry

    @cached_property
    def _documents(self) -> dict[str, tuple[bytes, str]]:
        found: dict[str, tuple[bytes, str]] = {}
        for group, versions in self._registry.groups().items():
            for version, kinds in versions.items():
                path = f"apis/{group}/{version}" if group else f"api/{version}"
                body = orjson.dumps(_document(path, kinds))
                found[path] = body, hashlib.sha512(body).hexdigest().upper()
        return found

    @cached_property
    def _swagger(self) -> bytes:
        paths: dict[str, Any] = {}
        definitions: dict[str, Any] = {_META_NAME: OBJECT_META}
        for kind in self._registry:
            paths |= _paths(kind, "#/definitions/", swagger=True)
            definitions |= _schemas(kind, "#/definitions/")
        info = {"title": "Nanocloud", "version": __version__}
        return orjson.dumps({"swagger": "2.0", "info": info, "paths": paths, "definitions": definitions})

    def index(self, request: Request) -> Response:
        paths = {
            path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={mark}"}
            for path, (_, mark) in self._documents.items()
        }
        return _cached(request, orjson.dumps({"paths": paths}), for_ever=False)

    def document(self, request: Request, path: str) -> Response:
        """Raises NotFoundError for a group version that is not served."""
        try:
            body, mark = self._documents[path.strip("/")]
        except KeyError:
            raise NotFoundError(f"no OpenAPI document for {path!r}") from None
        return _cached(request, body, for_ever=request.query_params.get("hash") == mark)

    def v2(self, request: Request) -> Response:
        return _cached(request, self._swagger, for_ever=False)


def _cached(request: Request, body: bytes, *, for_ever: bool) -> Response:
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    policy = "public, immutable, max-age=31536000" if for_ever else "no-cache, private"
    headers = {"ETag": tag, "Vary": "Accept", "Cache-Control": policy}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


def _document(path: str, kinds: list[ResourceKind]) -> Object:
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {_META_NAME: OBJECT_META}
    for kind in kinds:
        paths |= _paths(kind, "#/components/schemas/", swagger=False)
        schemas |= _schemas(kind, "#/components/schemas/")
    info = {"title": f"Nanocloud {path}", "version": __version__}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def _schemas(kind: ResourceKind, base: str) -> dict[str, Any]:
    mark = [_gvk(kind)]
    whole = kind.full_schema
    properties = whole["properties"] | {"metadata": {"$ref": base + _META_NAME}}
    items = {"type": "array", "items": {"$ref": base + schema_name(kind)}}
    listed = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": _LIST_META, "items": items}
    return {
        schema_name(kind): whole | {"properties": properties, "x-kubernetes-group-version-kind": mark},
        schema_name(kind) + "List": {
            "type": "object",
            "description": f"A list of {kind.plural}.",
            "properties": listed,
            "required": ["items"],
            "x-kubernetes-group-version-kind": [_gvk(kind) | {"kind": kind.kind + "List"}],
        },
    }


def _gvk(kind: ResourceKind) -> dict[str, str]:
    return {"group": kind.group, "version": kind.version, "kind": kind.kind}


def _paths(kind: ResourceKind, base: str, *, swagger: bool) -> dict[str, Any]:
    prefix = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"
    collection = f"{prefix}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"{prefix}/{kind.plural}"
    whole: dict[str, Any] = {"parameters": [_path_parameter("namespace", swagger)]} if kind.namespaced else {}
    single: dict[str, Any] = {"parameters": [*whole.get("parameters", []), _path_parameter("name", swagger)]}
    operations = (
        ("list", whole, "get"),
        ("create", whole, "post"),
        ("deletecollection", whole, "delete"),
        ("get", single, "get"),
        ("update", single, "put"),
        ("patch", single, "patch"),
        ("delete", single, "delete"),
    )
    for verb, item, method in operations:
        if verb in kind.verbs:
            item[method] = _operation(kind, verb, base, swagger=swagger)
    return {collection: whole, f"{collection}/{{name}}": single}


def _operation(kind: ResourceKind, verb: str, base: str, *, swagger: bool) -> Object:
    answer = {"$ref": base + schema_name(kind) + ("List" if verb == "list" else "")}
    ok = {"description": "OK"} | (
        {"schema": answer} if swagger else {"content": {"application/json": {"schema": answer}}}
    )
    action = {"create": "post", "update": "put"}.get(verb, verb)
    found: dict[str, Any] = {
        "operationId": f"{verb}{kind.kind}",
        "responses": {"200": ok},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _gvk(kind),
    }
    if verb in ("create", "update", "patch"):
        names = ("dryRun", "fieldManager", "fieldValidation", *(("force",) if verb == "patch" else ()))
        found["parameters"] = [_query_parameter(name, swagger) for name in names]
    return found


def _query_parameter(name: str, swagger: bool) -> Object:
    kind = {"type": "boolean" if name == "force" else "string"}
    return {"name": name, "in": "query"} | (kind if swagger else {"schema": kind})


def _path_parameter(name: str, swagger: bool) -> Object:
    kind = {"type": "string"}
    return {"name": name, "in": "path", "required": True} | (kind if swagger else {"schema": kind})
