"""What the API knows about a kind, and the registry of all kinds.

A kind is data: names, schema, table columns, rules. One generic store and one generic request handler serve every
kind, so a plugin adds a kind by adding a ``ResourceKind``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs

from nanocloud.errors import FieldError, InvalidError, NotFoundError, PluginError
from nanocloud.models import schema as schemas
from nanocloud.models.meta import (
    Object,
    is_dns_label,
    is_dns_subdomain,
    is_label_value,
    is_qualified_name,
    name_of,
)
from nanocloud.models.schema import Schema

READ_VERBS = ("get", "list", "watch")
ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_ANNOTATIONS_LIMIT_BYTES = 256 * 1024

OBJECT_META: Schema = schemas.fields(
    {
        "name": schemas.string("Unique within the namespace and kind; cannot be changed.", maxLength=253),
        "generateName": schemas.string("Prefix of a name that the server completes.", maxLength=253),
        "namespace": schemas.string("The namespace that the object lives in.", maxLength=63),
        "uid": schemas.string("Set by the server; never used twice."),
        "resourceVersion": schemas.string("The revision that the object was written at, as an opaque text."),
        "generation": schemas.integer("Grows when the spec changes.", format="int64"),
        "creationTimestamp": schemas.time("Set by the server.") | {"nullable": True},
        "deletionTimestamp": schemas.time("When the object was asked to go, or will be gone.") | {"nullable": True},
        "deletionGracePeriodSeconds": schemas.integer("Time to end gracefully.", format="int64"),
        "labels": schemas.mapping(description="Selectable marks.", maxProperties=256),
        "annotations": schemas.mapping(description="Marks that nothing selects by.", maxProperties=1024),
        "finalizers": schemas.array(
            schemas.string(),
            "Who must let go before the object is removed.",
            maxItems=64,
            **{schemas.PATCH_STRATEGY: "merge", "x-kubernetes-list-type": "set"},
        ),
        "ownerReferences": schemas.array(
            schemas.fields(
                {
                    "apiVersion": schemas.string(),
                    "kind": schemas.string(),
                    "name": schemas.string(),
                    "uid": schemas.string(),
                    "controller": schemas.boolean(nullable=True),
                    "blockOwnerDeletion": schemas.boolean(nullable=True),
                },
                required=("apiVersion", "kind", "name", "uid"),
            ),
            "Objects that this one depends on; without them it is collected.",
            key="uid",
            maxItems=64,
        ),
        "managedFields": schemas.array(schemas.anything(), "Who set which field.", maxItems=256),
        "selfLink": schemas.string("Unused."),
    },
    "What every object has.",
)


@attrs.frozen
class Column:
    """One column of the table that ``kubectl get`` prints. ``cell`` gives text, a number, or None for ``<none>``."""

    name: str
    cell: Callable[[Object], Any]
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0
    """Above 0 the column is shown with ``-o wide`` only."""


@attrs.frozen(kw_only=True)
class Subresource:
    """A path below an object that is not the object: ``log``, ``exec``, ``actions``."""

    name: str
    kind: str
    """What it answers with, as discovery says it."""
    verbs: tuple[str, ...]


def _nothing(_: Object) -> None:
    return None


def _no_causes(_: Object) -> list[FieldError]:
    return []


@attrs.frozen(kw_only=True, eq=False)
class ResourceKind:
    """One kind of the API."""

    group: str
    """Empty is the core group (``/api/v1``)."""
    version: str = "v1"
    plural: str
    singular: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    """What users of the API may do; controllers use the store and may do all."""
    schema: Schema = attrs.field(repr=False)
    """Of the fields besides apiVersion, kind and metadata."""
    columns: tuple[Column, ...] = attrs.field(default=(), repr=False)
    """Between NAME and AGE, which every kind has."""
    subresources: tuple[Subresource, ...] = ()
    has_status: bool = True
    """Status is written through ``/status`` only."""
    immutable: tuple[str, ...] = ()
    """Dotted paths that cannot change once set."""
    selectable: tuple[str, ...] = ()
    """Dotted paths that field selectors may name, besides metadata.name and metadata.namespace."""
    name_is_label: bool = False
    """Names are RFC 1123 labels (63 characters) instead of subdomains (253)."""
    prepare: Callable[[Object], None] = attrs.field(default=_nothing, repr=False)
    """Rewrites convenience fields before validation (``stringData`` of a Secret)."""
    check: Callable[[Object], list[FieldError]] = attrs.field(default=_no_causes, repr=False)
    """Rules that a schema cannot say."""
    check_update: Callable[[Object, Object], list[FieldError]] = attrs.field(default=lambda old, new: [], repr=False)
    initial_finalizers: tuple[str, ...] = ()
    encrypted: tuple[str, ...] = ()
    """Top-level fields that are stored sealed."""
    ttl_seconds: float | None = None
    """Objects go away this long after their last write."""
    grace_seconds: int | None = None
    """Deletion first marks the object and gives it this long; its worker removes it with a grace of 0."""
    custom: bool = False
    """Not a kind of Kubernetes: no strategic patch, list items name their kind, an unconditional PUT is refused."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """As messages name it: ``bundles.nanocloud.io``, ``pods``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def qualified_kind(self) -> str:
        return f"{self.kind}.{self.group}" if self.group else self.kind

    @property
    def full_schema(self) -> Schema:
        """Of a whole object."""
        return _full_schema(self)

    def prune(self, obj: Object) -> list[str]:
        """Drop unknown fields from ``obj``; return their paths."""
        return schemas.prune(obj, self.full_schema)

    def validate(self, obj: Object) -> Object:
        """Fill in defaults in place and check everything.

        Raises:
            InvalidError: lists every bad field by its path, with what is allowed.
        """
        self.prepare(obj)
        obj["apiVersion"], obj["kind"] = self.api_version, self.kind
        schemas.apply_defaults(obj, self.full_schema)
        causes = schemas.check(obj, self.full_schema)
        if not causes:
            causes = [*_check_meta(self, obj["metadata"]), *self.check(obj)]
        if causes:
            raise self.invalid(name_of(obj), causes)
        return obj

    def validate_change(self, old: Object, new: Object) -> None:
        """Check what may not change between two valid states.

        Raises:
            InvalidError: an immutable field differs.
        """
        causes = [
            FieldError(path, "cannot be changed", "FieldValueForbidden")
            for path in self.immutable
            if value_at(old, path) is not None and value_at(old, path) != value_at(new, path)
        ]
        if causes := causes + self.check_update(old, new):
            raise self.invalid(name_of(new), causes)

    def invalid(self, name: str, causes: list[FieldError]) -> InvalidError:
        shown = "; ".join(f"{cause.field}: {cause.message}" for cause in causes[:20])
        if len(causes) > 20:
            shown += f"; and {len(causes) - 20} more"
        return InvalidObjectError(self, name, shown, causes)


class InvalidObjectError(InvalidError):
    """An object that was refused, with the kind and the name that clients are told."""

    def __init__(self, kind: ResourceKind, name: str, shown: str, causes: list[FieldError]) -> None:
        super().__init__(f'{kind.qualified_kind} "{name}" is invalid: {shown}', causes)
        self.kind, self.name = kind, name


_schemas: dict[ResourceKind, Schema] = {}


def _full_schema(kind: ResourceKind) -> Schema:
    if kind not in _schemas:
        properties = {
            "apiVersion": schemas.string("Group and version of the kind."),
            "kind": schemas.string("Name of the kind."),
            "metadata": OBJECT_META,
        } | kind.schema.get("properties", {})
        whole = {k: v for k, v in kind.schema.items() if k != "properties"}
        _schemas[kind] = whole | {"type": "object", "properties": properties}
    return _schemas[kind]


def fault_of(kind: ResourceKind) -> str:
    """What keeps a kind of a plugin from being served, as the rest of a sentence; empty if nothing does."""
    try:
        if kind.group and not is_dns_subdomain(kind.group):
            return f"the group {kind.group!r}, which is no RFC 1123 subdomain"
        for word in (kind.version, kind.plural, kind.singular):
            if not is_dns_label(word):
                return f"the kind {kind.kind!r} with the name {word!r}, which is no RFC 1123 label"
        if not kind.kind.isidentifier():
            return f"the kind {kind.kind!r}, which is no name of a type"
        if not isinstance(kind.full_schema["properties"], dict):
            return f"the kind {kind.kind!r}, whose schema is none"
    except Exception as exc:  # values of other types than they are declared
        return f"a kind that cannot be read: {type(exc).__name__}: {exc}"
    return ""


def _check_meta(kind: ResourceKind, meta: dict[str, Any]) -> list[FieldError]:
    found = _check_name(kind, meta)
    for key, value in (meta.get("labels") or {}).items():
        if not is_qualified_name(key):
            found.append(FieldError("metadata.labels", f'"{key}" is not a label key ([prefix/]name)'))
        if not is_label_value(value):
            rule = "at most 63 letters, digits, '-', '_' or '.', beginning and ending with a letter or digit"
            found.append(FieldError("metadata.labels", f'"{value[:80]}" is not a label value: {rule}'))
    annotations = meta.get("annotations") or {}
    for key in annotations:
        if not is_qualified_name(key.lower()):
            found.append(FieldError("metadata.annotations", f'"{key[:80]}" is not an annotation key ([prefix/]name)'))
    if sum(len(k) + len(v) for k, v in annotations.items()) > _ANNOTATIONS_LIMIT_BYTES:
        found.append(FieldError("metadata.annotations", "are larger than 256 KiB together", "FieldValueTooLong"))
    for name in meta.get("finalizers") or []:
        if not is_qualified_name(name):
            found.append(FieldError("metadata.finalizers", f'"{name[:80]}" is not a qualified name'))
    return found


def _check_name(kind: ResourceKind, meta: dict[str, Any]) -> list[FieldError]:
    name = meta.get("name") or ""
    if not name:
        return [FieldError("metadata.name", "name or generateName is required", "FieldValueRequired")]
    if kind.name_is_label and not is_dns_label(name):
        rule = "a lowercase RFC 1123 label: at most 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit"
    elif not is_dns_subdomain(name):
        rule = "a lowercase RFC 1123 subdomain: labels of a-z, 0-9 and '-' joined by '.', at most 253 characters"
    else:
        return []
    return [FieldError("metadata.name", f'"{name[:80]}" must be {rule}')]


def value_at(obj: Any, path: str) -> Any:
    """The value at a dotted path, None where it ends early."""
    for part in path.split("."):
        if not isinstance(obj, dict):
            return None
        obj = obj.get(part)
    return obj


class KindRegistry:
    """All kinds that the node serves, by kind name and by path. Short names may not meet."""

    def __init__(self, kinds: Iterable[ResourceKind] = ()) -> None:
        self._by_plural: dict[tuple[str, str, str], ResourceKind] = {}
        self._by_kind: dict[tuple[str, str], ResourceKind] = {}
        for kind in kinds:
            self.add(kind)

    def add(self, kind: ResourceKind) -> None:
        """Serve one more kind.

        Raises:
            PluginError: its plural or kind is taken.
        """
        path, name = (kind.group, kind.version, kind.plural), (kind.api_version, kind.kind)
        if path in self._by_plural or name in self._by_kind:
            raise PluginError(f"the kind {kind.kind} ({kind.api_version} {kind.plural}) is registered twice")
        self._by_plural[path] = self._by_kind[name] = kind

    def __iter__(self) -> Iterator[ResourceKind]:
        return iter(self._by_plural.values())

    def groups(self) -> dict[str, dict[str, list[ResourceKind]]]:
        """Group to version to kinds; the core group has the empty name."""
        found: dict[str, dict[str, list[ResourceKind]]] = {}
        for kind in self:
            found.setdefault(kind.group, {}).setdefault(kind.version, []).append(kind)
        return found

    def by_path(self, group: str, version: str, plural: str) -> ResourceKind:
        """Raises NotFoundError for a resource that is not served."""
        try:
            return self._by_plural[group, version, plural]
        except KeyError:
            raise NotFoundError("the server could not find the requested resource") from None

    def by_kind(self, api_version: str, kind: str) -> ResourceKind:
        """Raises NotFoundError for a kind that is not served."""
        try:
            return self._by_kind[api_version, kind]
        except KeyError:
            raise NotFoundError(f"no kind {kind} in {api_version}") from None

    def of(self, obj: Object) -> ResourceKind:
        """The kind of an object by its apiVersion and kind."""
        return self.by_kind(str(obj.get("apiVersion", "")), str(obj.get("kind", "")))
