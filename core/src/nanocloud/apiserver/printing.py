"""Objects as answers: plain, as rows of a table, or as metadata only; JSON or YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import orjson
from starlette.responses import Response

from nanocloud.apiserver.negotiation import YAML, Form, Shape
from nanocloud.errors import BadRequestError
from nanocloud.models.manifest import dump_yaml
from nanocloud.models.tables import cells, columns_of, definitions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.datastructures import QueryParams
    from starlette.types import Receive, Scope, Send

    from nanocloud.models.kinds import ResourceKind
    from nanocloud.models.meta import Object

SHAPES = (Shape.TABLE, Shape.PARTIAL, Shape.PARTIAL_LIST)
_META_GROUP = "meta.k8s.io"


class Printer:
    """Writes objects of one kind in one form."""

    def __init__(self, kind: ResourceKind, form: Form, query: QueryParams) -> None:
        self._kind, self._form = kind, form
        self._include = query.get("includeObject") or "Metadata"
        if self._include not in ("None", "Metadata", "Object"):
            raise BadRequestError(f"includeObject is {self._include[:80]!r}; allowed: None, Metadata, Object")
        self._columns = columns_of(kind)

    def one(self, obj: Object) -> Object:
        if self._form.shape is Shape.TABLE:
            return self._table([obj], {"resourceVersion": obj["metadata"].get("resourceVersion", "")})
        return self._partial(obj) if self._is_partial else obj

    def many(self, objects: Sequence[Object], meta: Object) -> Object:
        if self._form.shape is Shape.TABLE:
            return self._table(objects, meta)
        if self._is_partial:
            version = f"{_META_GROUP}/{self._form.version}"
            items = [self._partial(obj) for obj in objects]
            return {"kind": "PartialObjectMetadataList", "apiVersion": version, "metadata": meta, "items": items}
        if not self._kind.custom:
            # As Kubernetes does: items of a built-in list do not repeat what the list says.
            objects = [{k: v for k, v in obj.items() if k not in ("kind", "apiVersion")} for obj in objects]
        return {
            "kind": self._kind.kind + "List",
            "apiVersion": self._kind.api_version,
            "metadata": meta,
            "items": list(objects),
        }

    def watched(self, obj: Object, *, first: bool) -> Object:
        """The object of a watch event; only the first table of a stream has its columns."""
        shown = self.one(obj)
        if self._form.shape is Shape.TABLE and not first:
            shown["columnDefinitions"] = None
        return shown

    @property
    def _is_partial(self) -> bool:
        return self._form.shape in (Shape.PARTIAL, Shape.PARTIAL_LIST)

    def _partial(self, obj: Object) -> Object:
        version = f"{_META_GROUP}/{self._form.version or 'v1'}"
        return {"kind": "PartialObjectMetadata", "apiVersion": version, "metadata": obj["metadata"]}

    def _table(self, objects: Sequence[Object], meta: Object) -> Object:
        rows: list[dict[str, Any]] = []
        for obj in objects:
            row: dict[str, Any] = {"cells": cells(self._columns, obj)}
            if self._include != "None":
                row["object"] = obj if self._include == "Object" else self._partial(obj)
            rows.append(row)
        return {
            "kind": "Table",
            "apiVersion": f"{_META_GROUP}/{self._form.version}",
            "metadata": meta,
            "columnDefinitions": definitions(self._columns),
            "rows": rows,
        }


def list_json(kind: ResourceKind, items: Sequence[bytes], meta: Object) -> bytes:
    """What ``Printer.many`` gives for plain objects, from the JSON of each."""
    head = orjson.dumps({"kind": kind.kind + "List", "apiVersion": kind.api_version, "metadata": meta})
    return b'%b,"items":[%b]}' % (head[:-1], b",".join(items))


class Json:
    """A good answer whose JSON is there already, as an ASGI application."""

    _START: ClassVar = {
        "type": "http.response.start",
        "status": 200,
        "headers": ((b"content-type", b"application/json"),),
    }

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(self._START)
        await send({"type": "http.response.body", "body": self._data})


def send(document: Object, form: Form, *, code: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    if form.is_yaml:
        return Response(dump_yaml(document), code, dict(headers or {}), media_type=YAML)
    return Response(orjson.dumps(document), code, dict(headers or {}), media_type="application/json")
