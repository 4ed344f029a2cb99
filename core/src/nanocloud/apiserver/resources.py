"""The verbs on objects: get, list, create, update, patch, delete. One handler a verb, for every kind."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

import orjson
from starlette.responses import Response

from nanocloud.apiserver import bodies, negotiation, printing
from nanocloud.apiserver.status import ExpiredTokenError, UnsupportedMediaTypeError, success
from nanocloud.errors import (
    BadRequestError,
    CompactedError,
    FieldError,
    FutureRevisionError,
    PluginError,
)
from nanocloud.extension import Requester
from nanocloud.models.meta import Object, name_of, namespace_of
from nanocloud.models.patch import json_patch, merge_patch, strategic_merge_patch
from nanocloud.models.selectors import Selector, parse
from nanocloud.objects.codec import copy, prefix_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from nanocloud.apiserver.context import ApiContext
    from nanocloud.apiserver.paths import Target
    from nanocloud.models.kinds import ResourceKind
    from nanocloud.objects import ObjectList

JSON_PATCH, MERGE_PATCH = "application/json-patch+json", "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"


# ---- reading ---------------------------------------------------------------------------------------------------------


async def get(context: ApiContext, request: Request, target: Target) -> ASGIApp:
    form = negotiation.form_of(request, printing.SHAPES)
    wanted_revision(context, request)
    if form.is_plain:
        return printing.Json(await context.store.get_json(target.kind, target.where, target.name or ""))
    printer = printing.Printer(target.kind, form, request.query_params)
    obj = await context.store.get(target.kind, target.where, target.name or "")
    return printing.send(printer.one(obj), form)


async def list_(context: ApiContext, request: Request, target: Target) -> ASGIApp:
    form = negotiation.form_of(request, printing.SHAPES)
    printer = printing.Printer(target.kind, form, request.query_params)
    selector = selector_of(request, target.kind)
    limit = negotiation.number(request.query_params, "limit") or None
    token = request.query_params.get("continue") or ""
    revision, after = _start_of_page(context, request, target, token)
    if selector.exact_name and not token and revision is None and (target.namespace or not target.kind.namespaced):
        return await _list_one(context, target, selector, printer, form)
    kind, store = target.kind, context.store
    matches = selector.matches if selector else None
    try:
        if form.is_plain and not selector:
            bare = not kind.custom
            encoded = await store.list_json(
                kind, target.namespace, bare=bare, limit=limit, after=after, revision=revision
            )
            return printing.Json(printing.list_json(kind, encoded.items, _list_meta(encoded)))
        page = await store.list(kind, target.namespace, matches=matches, limit=limit, after=after, revision=revision)
    except CompactedError as exc:
        if token and after:
            raise ExpiredTokenError(_token(None, after)) from exc
        raise
    return printing.send(printer.many(page.items, _list_meta(page)), form)


def _list_meta(page: ObjectList[Any]) -> Object:
    meta: Object = {"resourceVersion": str(page.revision)}
    if page.after:
        meta["continue"] = _token(page.revision, page.after)
    return meta


async def _list_one(
    context: ApiContext, target: Target, selector: Selector, printer: printing.Printer, form: negotiation.Form
) -> Response:
    """A list that can hold one name only is one read, however many objects there are."""
    revision = context.store.revision
    found = await context.store.find(target.kind, target.where, selector.exact_name or "")
    items = [found] if found is not None and selector.matches(found) else []
    return printing.send(printer.many(items, {"resourceVersion": str(revision)}), form)


def selector_of(request: Request, kind: ResourceKind) -> Selector:
    query = request.query_params
    return parse(kind, labels=query.get("labelSelector") or "", fields=query.get("fieldSelector") or "")


def wanted_revision(context: ApiContext, request: Request) -> int | None:
    """The ``resourceVersion`` parameter; None where any recent state will do.

    Raises:
        BadRequestError: no number.
        FutureRevisionError: not reached yet.
    """
    text = request.query_params.get("resourceVersion")
    if not text:
        return None
    revision = parse_revision(text)
    if revision > context.store.revision:
        raise FutureRevisionError(requested=revision, current=context.store.revision)
    return revision or None


def parse_revision(text: object) -> int:
    """Raises BadRequestError for what no server gave out."""
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or len(text) > 18:
        raise BadRequestError(f"resourceVersion is {str(text)[:80]!r}; it must be one that this server gave out")
    return int(text)


def _start_of_page(
    context: ApiContext, request: Request, target: Target, token: str
) -> tuple[int | None, tuple[str, ...] | None]:
    match = request.query_params.get("resourceVersionMatch")
    if match not in (None, "", "Exact", "NotOlderThan"):
        raise BadRequestError(f"resourceVersionMatch is {match[:80]!r}; allowed: Exact, NotOlderThan")
    if match and token:
        raise BadRequestError("resourceVersionMatch is forbidden with continue")
    if match and not request.query_params.get("resourceVersion"):
        raise BadRequestError("resourceVersionMatch is forbidden unless resourceVersion is provided")
    revision = wanted_revision(context, request)
    if token:
        return _read_token(token, target)
    if match == "Exact":
        if revision is None:
            raise BadRequestError("resourceVersionMatch Exact is forbidden for resourceVersion 0")
        return revision, None
    return None, None


def _token(revision: int | None, after: tuple[str, ...]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps({"rv": revision, "after": after})).decode().rstrip("=")


def _read_token(token: str, target: Target) -> tuple[int | None, tuple[str, ...]]:
    try:
        data = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        revision, after = data["rv"], tuple(data["after"])
        prefix = prefix_of(target.kind, target.namespace)
        is_ours = after[: len(prefix)] == prefix and all(isinstance(part, str) for part in after)
        if is_ours and (revision is None or (isinstance(revision, int) and revision > 0)):
            return revision, after
    except (binascii.Error, ValueError, KeyError, TypeError):
        pass
    raise BadRequestError("continue key is not valid")


# ---- writing ---------------------------------------------------------------------------------------------------------


async def create(context: ApiContext, request: Request, target: Target) -> Response:
    form = negotiation.form_of(request)
    obj = await bodies.read_object(request)
    check_address(obj, target)
    warnings = validate_fields(target.kind, obj, request)
    if target.kind.has_status:
        obj.pop("status", None)
    obj = admit(context, request, "create", target.kind, obj, None)
    dry_run = negotiation.dry_run(request.query_params)
    made = await context.store.create(target.kind, obj, dry_run=dry_run)
    return printing.send(made, form, code=201, headers=warnings)


async def update(context: ApiContext, request: Request, target: Target) -> Response:
    form = negotiation.form_of(request)
    obj = await bodies.read_object(request)
    check_address(obj, target)
    warnings = validate_fields(target.kind, obj, request)
    if target.kind.custom and not obj["metadata"].get("resourceVersion"):
        cause = FieldError("metadata.resourceVersion", "must be specified for an update")
        raise target.kind.invalid(target.name or "", [cause])
    old = await context.store.get(target.kind, target.where, target.name or "")
    if target.subresource is None:
        obj = admit(context, request, "update", target.kind, obj, old)
    dry_run = negotiation.dry_run(request.query_params)
    made = await context.store.update(target.kind, obj, subresource=target.subresource, dry_run=dry_run)
    return printing.send(made, form, headers=warnings)


async def patch(context: ApiContext, request: Request, target: Target) -> Response:
    form = negotiation.form_of(request)
    apply = await _patch_function(request, target.kind)
    warnings: dict[str, str] = {}

    def change(obj: Object) -> Object:
        old = copy(obj)
        changed = bodies.as_object(apply(obj))
        check_address(changed, target)
        warnings.update(validate_fields(target.kind, changed, request))
        if target.subresource is None:
            changed = admit(context, request, "update", target.kind, changed, old)
        return changed

    made = await context.store.modify(
        target.kind,
        target.where,
        target.name or "",
        change,
        subresource=target.subresource,
        dry_run=negotiation.dry_run(request.query_params),
    )
    return printing.send(made, form, headers=warnings)


async def _patch_function(request: Request, kind: ResourceKind) -> Callable[[Object], Any]:
    media, body = bodies.content_type(request), await bodies.read_bytes(request)
    if media == JSON_PATCH:
        operations = bodies.parse_json(body)
        return lambda obj: json_patch(obj, operations)
    if media == MERGE_PATCH:
        document = bodies.as_object(bodies.parse_json(body))
        return lambda obj: merge_patch(obj, document)
    if media == STRATEGIC_PATCH and not kind.custom:
        strategic = bodies.as_object(bodies.parse_json(body))
        return lambda obj: strategic_merge_patch(obj, strategic, kind.full_schema)
    accepted = [JSON_PATCH, MERGE_PATCH, *([] if kind.custom else [STRATEGIC_PATCH])]
    raise UnsupportedMediaTypeError(
        f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}"
    )


def check_address(obj: Object, target: Target) -> None:
    """The body must speak of the object that the path names; what it leaves out is filled in.

    Raises:
        BadRequestError: names what differs.
    """
    kind = target.kind
    for field, wanted in (("apiVersion", kind.api_version), ("kind", kind.kind)):
        if obj.setdefault(field, wanted) != wanted:
            raise BadRequestError(f"{field} is {str(obj[field])[:80]!r}; this path takes {wanted!r}")
    meta = obj.setdefault("metadata", {})
    if not isinstance(meta, dict):
        raise BadRequestError("metadata must be an object")
    if meta.get("resourceVersion"):
        parse_revision(meta["resourceVersion"])
    # managedFields are the server's; what clients send back of them is not theirs to change.
    meta.pop("managedFields", None)
    if kind.namespaced:
        if meta.get("namespace") not in (None, "", target.namespace):
            raise BadRequestError(
                "the namespace of the provided object does not match the namespace sent on the request "
                f"({str(meta['namespace'])[:80]!r}, {target.namespace!r})"
            )
        meta["namespace"] = target.namespace
    if target.name is not None:
        if meta.get("name") not in (None, "", target.name):
            raise BadRequestError(
                f"the name of the object ({str(meta['name'])[:80]}) does not match the name on the URL ({target.name})"
            )
        meta["name"] = target.name


def validate_fields(kind: ResourceKind, obj: Object, request: Request) -> dict[str, str]:
    """Drop unknown fields and say so as ``fieldValidation`` asks: refuse (Strict), warn (default), be silent (Ignore).

    Returns:
        Headers for the answer.
    """
    mode = request.query_params.get("fieldValidation") or "Warn"
    if mode not in ("Strict", "Warn", "Ignore"):
        raise BadRequestError(f"fieldValidation is {mode[:80]!r}; allowed: Strict, Warn, Ignore")
    unknown = kind.prune(obj)
    if not unknown or mode == "Ignore":
        return {}
    shown = [f'unknown field "{_printable(path)}"' for path in unknown[:10]]
    if mode == "Strict":
        what = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}'
        raise BadRequestError(f"{what}: strict decoding error: {', '.join(shown)}")
    quoted = ", ".join(shown).replace("\\", "\\\\").replace('"', '\\"')
    return {"Warning": f'299 - "{quoted}"'}


def _printable(text: str) -> str:
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text[:200])


def admit(
    context: ApiContext, request: Request, operation: Any, kind: ResourceKind, obj: Object, old: Object | None
) -> Object:
    requester = Requester(name=request.user.name, groups=request.user.groups)
    checks = sorted(context.admission, key=lambda check: check.name)
    for check in checks:
        obj = check.admit(operation, kind, obj, old, requester)
        if not isinstance(obj, dict):
            raise PluginError(f"the admission check {check.name!r} returned {type(obj).__name__} and no object")
    return obj


# ---- deleting --------------------------------------------------------------------------------------------------------

_POLICIES = ("Background", "Foreground", "Orphan")


async def delete(context: ApiContext, request: Request, target: Target) -> Response:
    form = negotiation.form_of(request)
    options = await _delete_options(request)
    preconditions = options.pop("preconditions")
    obj, gone = await context.store.delete(target.kind, target.where, target.name or "", **preconditions, **options)
    if gone and target.kind.grace_seconds is None:
        return printing.send(success(target.kind, obj), form)
    return printing.send(obj, form)


async def delete_collection(context: ApiContext, request: Request, target: Target) -> Response:
    form = negotiation.form_of(request)
    selector = selector_of(request, target.kind)
    options = await _delete_options(request)
    options.pop("preconditions")
    page = await context.store.list(target.kind, target.namespace, matches=selector.matches if selector else None)
    for obj in page.items:
        try:
            await context.store.delete(
                target.kind, namespace_of(obj), name_of(obj), uid=obj["metadata"]["uid"], **options
            )
        except Exception as exc:
            if getattr(exc, "reason", "") not in ("NotFound", "Conflict"):
                raise  # gone, or another of its name: neither is what was asked to go
    return printing.send({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}, form)


async def _delete_options(request: Request) -> dict[str, Any]:
    """Options from the body, or from the query where there is no body."""
    body = await bodies.read_bytes(request)
    given = bodies.as_object(bodies.parse_json(body)) if body.strip() else {}
    query = request.query_params
    grace = given.get("gracePeriodSeconds", negotiation.number(query, "gracePeriodSeconds"))
    if grace is not None and (type(grace) is not int or grace < 0):
        raise BadRequestError(f"gracePeriodSeconds is {str(grace)[:80]!r}; it must be a whole number of at least 0")
    policy = given.get("propagationPolicy", query.get("propagationPolicy"))
    if policy is not None and policy not in _POLICIES:
        raise BadRequestError(f"propagationPolicy is {str(policy)[:80]!r}; allowed: {', '.join(_POLICIES)}")
    dry_run = negotiation.dry_run(query) or given.get("dryRun") == ["All"]
    wanted = given.get("preconditions") or {}
    if not isinstance(wanted, dict) or not all(isinstance(v, str) for v in wanted.values() if v is not None):
        raise BadRequestError("preconditions must be an object of uid and resourceVersion")
    version = wanted.get("resourceVersion")
    preconditions = {"uid": wanted.get("uid"), "resource_version": parse_revision(version) if version else None}
    return {"grace_seconds": grace, "dry_run": dry_run, "preconditions": preconditions}
