"""What the API offers: group, version and resource lists, plain and aggregated.

Source: Kubernetes API concepts, "API Discovery"; apidiscovery.k8s.io/v2.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import orjson
from starlette.responses import Response

from nanocloud.apiserver.negotiation import Form, Shape, form_of
from nanocloud.errors import NotFoundError

if TYPE_CHECKING:
    from starlette.requests import Request

    from nanocloud.models.kinds import KindRegistry, ResourceKind
    from nanocloud.models.meta import Object

_STATUS_VERBS = ["get", "patch", "update"]


def respond(registry: KindRegistry, request: Request, parts: tuple[str, ...]) -> Response:
    """Answer a discovery path, given as ``("api",)``, ``("apis", group, version)``, ..."""
    form = form_of(request, (Shape.DISCOVERY,) if len(parts) == 1 else ())
    if form.shape is Shape.DISCOVERY:
        return _send(request, _aggregated(registry, form, core=parts[0] == "api"), form)
    return _send(request, _plain(registry, parts), Form())


def _send(request: Request, document: Object, form: Form) -> Response:
    body = orjson.dumps(document)
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Vary": "Accept", "Cache-Control": "public"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    media = "application/json"
    if form.shape is Shape.DISCOVERY:
        media += f";g=apidiscovery.k8s.io;v={form.version};as=APIGroupDiscoveryList"
    return Response(body, headers=headers | {"Content-Type": media})


def _aggregated(registry: KindRegistry, form: Form, *, core: bool) -> Object:
    items = [
        {
            "metadata": {"name": group} if group else {},
            "versions": [
                {"version": version, "freshness": "Current", "resources": [_discovered(kind) for kind in kinds]}
                for version, kinds in versions.items()
            ],
        }
        for group, versions in registry.groups().items()
        if (group == "") is core
    ]
    version = f"apidiscovery.k8s.io/{form.version}"
    return {"kind": "APIGroupDiscoveryList", "apiVersion": version, "metadata": {}, "items": items}


def _discovered(kind: ResourceKind) -> Object:
    found: dict[str, Any] = {
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": sorted(kind.verbs),
    }
    if kind.short_names:
        found["shortNames"] = list(kind.short_names)
    if kind.categories:
        found["categories"] = list(kind.categories)
    below = [
        {
            "subresource": name,
            "responseKind": {"group": kind.group, "version": kind.version, "kind": answer},
            "verbs": verbs,
        }
        for name, answer, verbs in _subresources(kind)
    ]
    return found | ({"subresources": below} if below else {})


def _subresources(kind: ResourceKind) -> list[tuple[str, str, list[str]]]:
    found = [(sub.name, sub.kind, sorted(sub.verbs)) for sub in kind.subresources]
    if kind.has_status:
        found.append(("status", kind.kind, [v for v in _STATUS_VERBS if v == "get" or "update" in kind.verbs]))
    return found


def _plain(registry: KindRegistry, parts: tuple[str, ...]) -> Object:
    groups = registry.groups()
    if parts == ("api",):
        return {"kind": "APIVersions", "versions": list(groups.get("", {})), "serverAddressByClientCIDRs": []}
    if parts == ("apis",):
        listed = [_group(name, list(versions)) for name, versions in groups.items() if name]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
    if parts[0] == "apis" and len(parts) == 2 and parts[1] in groups and parts[1]:
        return {"kind": "APIGroup", "apiVersion": "v1"} | _group(parts[1], list(groups[parts[1]]))
    group, version = ("", parts[1]) if parts[0] == "api" else (parts[1], parts[2] if len(parts) > 2 else "")
    kinds = groups.get(group, {}).get(version) if group or parts[0] == "api" else None
    if kinds is None:
        raise NotFoundError("the server could not find the requested resource")
    named = f"{group}/{version}" if group else version
    resources = [entry for kind in kinds for entry in _listed(kind)]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": named, "resources": resources}


def _group(name: str, versions: list[str]) -> Object:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _listed(kind: ResourceKind) -> list[Object]:
    found: dict[str, Any] = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": sorted(kind.verbs),
    }
    if kind.short_names:
        found["shortNames"] = list(kind.short_names)
    if kind.categories:
        found["categories"] = list(kind.categories)
    return [
        found,
        *(
            {
                "name": f"{kind.plural}/{name}",
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": answer,
                "verbs": verbs,
            }
            for name, answer, verbs in _subresources(kind)
        ),
    ]
