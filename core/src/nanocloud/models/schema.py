"""Structural schemas: one description of a kind serves validation, defaults, pruning, patches, OpenAPI and ``explain``.

A schema is plain JSON Schema as OpenAPI 3.0 restricts it, with the Kubernetes extensions that clients read
(``x-kubernetes-preserve-unknown-fields``, ``-int-or-string``, ``-patch-merge-key``, ``-list-type``, ...). Depth is
limited by the schema itself; what a schema preserves unknown is limited by ``MAX_DEPTH``.
"""

from __future__ import annotations

import base64
import binascii
import copy
import enum
import re
import types
import typing
from functools import cache
from typing import Any, TypeAlias

import attrs

from nanocloud.errors import FieldError
from nanocloud.models.converter import json_name
from nanocloud.models.meta import parse_time

Schema: TypeAlias = dict[str, Any]

MAX_DEPTH = 64
PRESERVE = "x-kubernetes-preserve-unknown-fields"
INT_OR_STRING = "x-kubernetes-int-or-string"
MERGE_KEY = "x-kubernetes-patch-merge-key"
PATCH_STRATEGY = "x-kubernetes-patch-strategy"
_QUANTITY = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?")


def string(description: str = "", **more: Any) -> Schema:
    return _node("string", description, more)


def integer(description: str = "", **more: Any) -> Schema:
    return _node("integer", description, {"format": "int32"} | more)


def boolean(description: str = "", **more: Any) -> Schema:
    return _node("boolean", description, more)


def time(description: str = "") -> Schema:
    return _node("string", description, {"format": "date-time"})


def quantity(description: str = "") -> Schema:
    return {"description": description, "format": "quantity"} | int_or_string()


def int_or_string(description: str = "") -> Schema:
    found: Schema = {"anyOf": [{"type": "integer"}, {"type": "string"}], INT_OR_STRING: True}
    return ({"description": description} if description else {}) | found


def anything(description: str = "") -> Schema:
    """An object whose fields are kept as they are."""
    return _node("object", description, {PRESERVE: True})


def mapping(items: Schema | None = None, description: str = "", **more: Any) -> Schema:
    return _node("object", description, {"additionalProperties": items or string()} | more)


def array(items: Schema, description: str = "", *, key: str | None = None, **more: Any) -> Schema:
    """``key`` names the field that tells entries apart: patches then merge entries instead of replacing the list."""
    if key:
        more |= {MERGE_KEY: key, PATCH_STRATEGY: "merge", "x-kubernetes-list-type": "map"}
        more["x-kubernetes-list-map-keys"] = [key]
    return _node("array", description, {"items": items} | more)


def fields(
    properties: dict[str, Schema], description: str = "", *, required: tuple[str, ...] = (), **more: Any
) -> Schema:
    extra: Schema = {"properties": properties} | ({"required": list(required)} if required else {})
    return _node("object", description, extra | more)


def _node(kind: str, description: str, more: Schema) -> Schema:
    return {"type": kind} | ({"description": description} if description else {}) | more


# ---- from attrs classes ----------------------------------------------------------------------------------------------


def described(description: str, *, default: Any = attrs.NOTHING, factory: Any = None, **schema: Any) -> Any:
    """An attrs field that carries its description and schema limits (``pattern``, ``maximum``, ...)."""
    metadata = {"description": description, "schema": schema}
    if factory is not None:
        return attrs.field(factory=factory, metadata=metadata)
    return attrs.field(default=default, metadata=metadata)


@cache
def of_class(cls: type) -> Schema:
    """The schema of an attrs class, as ``models.converter`` reads it."""
    hints = typing.get_type_hints(cls)
    properties: dict[str, Schema] = {}
    required: list[str] = []
    for a in attrs.fields(cls):
        name = json_name(cls, a.name)
        node = _of_type(hints[a.name]) | dict(a.metadata.get("schema", {}))
        if description := a.metadata.get("description"):
            node["description"] = description
        if a.default is attrs.NOTHING:
            required.append(name)
        elif isinstance(a.default, (bool, int, str)):
            node["default"] = a.default
        elif isinstance(a.default, enum.Enum):
            node["default"] = a.default.value
        properties[name] = node
    return fields(properties, (cls.__doc__ or "").strip(), required=tuple(required))


def _of_type(hint: Any) -> Schema:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [a for a in arguments if a is not type(None)]
        return _of_type(inner[0]) | {"nullable": True}
    if origin in (tuple, list):
        return array(_of_type(arguments[0]))
    if origin is dict:
        return mapping(_of_type(arguments[1]))
    if hasattr(hint, "__supertype__"):
        return _of_type(hint.__supertype__)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return string(enum=[member.value for member in hint])
    if attrs.has(hint):
        return copy.deepcopy(of_class(hint))
    if hint is Any:
        return {PRESERVE: True}
    return {str: string, int: integer, bool: boolean}[hint]()


# ---- walking ---------------------------------------------------------------------------------------------------------


def join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def prune(value: Any, schema: Schema, path: str = "") -> list[str]:
    """Remove fields that the schema does not know from ``value``; return their paths."""
    unknown: list[str] = []
    if isinstance(value, dict) and "properties" in schema:
        for name in list(value):
            if name in schema["properties"]:
                unknown += prune(value[name], schema["properties"][name], join(path, name))
            elif "additionalProperties" in schema:
                unknown += prune(value[name], schema["additionalProperties"], join(path, name))
            elif not schema.get(PRESERVE):
                del value[name]
                unknown.append(join(path, name))
    elif isinstance(value, dict) and "additionalProperties" in schema:
        for name, inner in value.items():
            unknown += prune(inner, schema["additionalProperties"], join(path, name))
    elif isinstance(value, list) and "items" in schema:
        for index, inner in enumerate(value):
            unknown += prune(inner, schema["items"], f"{path}[{index}]")
    return unknown


def apply_defaults(value: Any, schema: Schema) -> None:
    """Fill in missing fields that have a default, in place; a null where the field is no nullable one is removed."""
    if isinstance(value, dict):
        for name, inner in schema.get("properties", {}).items():
            if value.get(name, 0) is None and not inner.get("nullable"):
                del value[name]
            if name not in value:
                if "default" not in inner:
                    continue
                value[name] = copy.deepcopy(inner["default"])
            apply_defaults(value[name], inner)
        if "additionalProperties" in schema:
            for name in value.keys() - schema.get("properties", {}).keys():
                apply_defaults(value[name], schema["additionalProperties"])
    elif isinstance(value, list) and "items" in schema:
        for inner in value:
            apply_defaults(inner, schema["items"])


def check(value: Any, schema: Schema, path: str = "") -> list[FieldError]:
    """Every way in which ``value`` breaks the schema, by field path."""
    if value is None:
        if schema.get("nullable"):
            return []
        return [FieldError(path, f"must be {_word(schema)}, not null", "FieldValueTypeInvalid")]
    if schema.get(INT_OR_STRING):
        return _check_int_or_string(value, schema, path)
    kind = schema.get("type")
    if kind is None:
        return []
    if not _is(value, kind):
        return [FieldError(path, f"must be {_word(schema)}, not {_shown(value)}", "FieldValueTypeInvalid")]
    if kind == "object":
        return _check_object(value, schema, path)
    if kind == "array":
        return _check_array(value, schema, path)
    return _check_scalar(value, schema, path)


def _is(value: Any, kind: str) -> bool:
    if kind == "number":
        return type(value) in (int, float)
    return type(value) is {"string": str, "integer": int, "boolean": bool, "object": dict, "array": list}[kind]


def _check_object(value: dict[str, Any], schema: Schema, path: str) -> list[FieldError]:
    found = [
        FieldError(join(path, name), "is required", "FieldValueRequired")
        for name in schema.get("required", ())
        if value.get(name) is None
    ]
    properties: dict[str, Schema] = schema.get("properties", {})
    for name, inner in value.items():
        if name in properties:
            if inner is None and name in schema.get("required", ()):
                continue
            found += check(inner, properties[name], join(path, name))
        elif "additionalProperties" in schema:
            found += check(inner, schema["additionalProperties"], join(path, name))
        elif not schema.get(PRESERVE):
            found.append(FieldError(join(path, name), "is not a known field", "FieldValueForbidden"))
    if len(value) > schema.get("maxProperties", len(value)):
        found.append(
            FieldError(path, f"has {len(value)} entries; at most {schema['maxProperties']}", "FieldValueTooMany")
        )
    return found


def _check_array(value: list[Any], schema: Schema, path: str) -> list[FieldError]:
    if len(value) > schema.get("maxItems", len(value)):
        return [FieldError(path, f"has {len(value)} entries; at most {schema['maxItems']}", "FieldValueTooMany")]
    found = [cause for i, inner in enumerate(value) for cause in check(inner, schema["items"], f"{path}[{i}]")]
    if (key := schema.get(MERGE_KEY)) and not found:
        seen: set[Any] = set()
        for i, inner in enumerate(value):
            if (mark := inner.get(key)) in seen:
                found.append(FieldError(f"{path}[{i}].{key}", f"{mark!r} appears twice", "FieldValueDuplicate"))
            seen.add(mark)
    return found


def _check_scalar(value: Any, schema: Schema, path: str) -> list[FieldError]:
    if "enum" in schema and value not in schema["enum"]:
        allowed = ", ".join(f'"{choice}"' for choice in schema["enum"])
        return [FieldError(path, f"{_quoted(value)} is not supported; one of {allowed}", "FieldValueNotSupported")]
    if isinstance(value, str):
        return _check_string(value, schema, path)
    low, high = schema.get("minimum"), schema.get("maximum")
    if (low is not None and value < low) or (high is not None and value > high):
        return [FieldError(path, f"{value} is outside {_range(low, high)}")]
    if schema.get("format") in ("int32", "int64") and not -(2**63) <= value < 2**63:
        return [FieldError(path, f"{value} does not fit 64 bits")]
    return []


def _check_string(value: str, schema: Schema, path: str) -> list[FieldError]:
    if len(value) < schema.get("minLength", 0):
        return [FieldError(path, "must not be empty" if not value else f"is shorter than {schema['minLength']}")]
    if len(value) > schema.get("maxLength", len(value)):
        return [FieldError(path, f"is longer than {schema['maxLength']} characters", "FieldValueTooLong")]
    if (pattern := schema.get("pattern")) and not matches(pattern, value):
        what = schema.get("x-nanocloud-rule") or f"must match {pattern}"
        return [FieldError(path, f"{_quoted(value)}: {what}")]
    form = schema.get("format")
    if form == "date-time" and parse_time(value) is None:
        return [FieldError(path, f"{_quoted(value)} is not an RFC 3339 time")]
    if form == "byte":
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return [FieldError(path, "is not base64")]
    return []


def _check_int_or_string(value: Any, schema: Schema, path: str) -> list[FieldError]:
    if type(value) not in (int, str):
        return [FieldError(path, f"must be an integer or a string, not {_shown(value)}", "FieldValueTypeInvalid")]
    if schema.get("format") == "quantity" and not _QUANTITY.fullmatch(str(value)):
        return [FieldError(path, f"{_quoted(value)} is not a quantity such as 500m, 64Mi or 1Gi")]
    return []


def matches(pattern: str, text: str) -> bool:
    return bool(_compiled(pattern).search(text))


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _word(schema: Schema) -> str:
    words = {"string": "a string", "integer": "an integer", "boolean": "true or false", "number": "a number"}
    return (words | {"object": "an object", "array": "a list"}).get(schema.get("type", ""), "a value")


def _shown(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    return _quoted(value)


def _quoted(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return str(value)
    return f'"{value}"' if len(value) <= 120 else f'"{value[:117]}..."'


def _range(low: int | None, high: int | None) -> str:
    if low is None or high is None:
        return f"the allowed range (at least {low})" if high is None else f"the allowed range (at most {high})"
    return f"{low} to {high}"
