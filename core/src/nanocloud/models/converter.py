"""One strict converter between JSON data and attrs classes; every bad field is reported by its path.

Classes are snake_case, JSON is camelCase. Nothing is coerced: ``"no"`` is no boolean and ``5`` is no string. Unknown
fields are refused. A class may set ``__json_names__ = {"attribute": "jsonName"}`` where camelCase is not the name.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import attrs
import cattrs
from cattrs.cols import (
    homogenous_tuple_structure_factory,
    is_mapping,
    is_sequence,
    list_structure_factory,
    mapping_structure_factory,
)
from cattrs.errors import ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from nanocloud.errors import FieldError, InvalidError

T = TypeVar("T")


def camel(name: str) -> str:
    """``host_port`` becomes ``hostPort``; acronyms stay words (``cluster_ip`` is ``clusterIp``)."""
    head, *rest = name.strip("_").split("_")
    return head + "".join(part.capitalize() for part in rest)


def json_name(cls: type, attribute: str) -> str:
    names: dict[str, str] = getattr(cls, "__json_names__", {})
    return names.get(attribute) or camel(attribute)


def _exact(value: object, kind: type[T]) -> T:
    # cattrs would coerce, and bool("no") is True. A manifest must say what it means.
    if type(value) is not kind:
        raise TypeError(f"expected {_word(kind)}, got {_shown(value)}")
    return value


def _enum(value: object, kind: type[Enum]) -> Enum:
    for member in kind:
        if member.value == value:
            return member
    allowed = ", ".join(str(member.value) for member in kind)
    raise ValueError(f"{value!r} is not one of {allowed}")


def _number(value: object, _: object) -> float:
    # JSON and TOML write a whole number without a point.
    return float(value) if type(value) is int else _exact(value, float)


def _path(value: object, _: object) -> Path:
    return Path(_exact(value, str))


def _build() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    for scalar in (bool, int, str):
        converter.register_structure_hook(scalar, _exact)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook_func(lambda t: isinstance(t, type) and issubclass(t, Enum), _enum)
    converter.register_structure_hook(Path, _path)
    converter.register_unstructure_hook(Path, str)
    for predicate, factory in ((is_sequence, list_structure_factory), (_is_row, homogenous_tuple_structure_factory)):
        converter.register_structure_hook_factory(predicate, partial(_only, list, factory, converter))
    converter.register_structure_hook_factory(is_mapping, partial(_only, dict, mapping_structure_factory, converter))
    converter.register_structure_hook_factory(attrs.has, lambda cls: _structure(converter, cls))
    converter.register_unstructure_hook_factory(attrs.has, lambda cls: _unstructure(converter, cls))
    return converter


def _is_row(kind: Any) -> bool:
    """Whether it is a ``tuple[T, ...]``."""
    return typing.get_origin(kind) is tuple and typing.get_args(kind)[1:] == (...,)


def _only(wanted: type, factory: Callable[[Any, Any], Any], converter: cattrs.Converter, kind: Any) -> Any:
    """cattrs takes anything that can be iterated: the text "abc" would be a list of three."""
    generated = factory(kind, converter)

    def structure(value: Any, kind: Any) -> Any:
        if not isinstance(value, wanted):
            raise TypeError(f"expected {'a list' if wanted is list else 'an object'}, got {_shown(value)}")
        return generated(value, kind)

    return structure


def _renames(cls: type) -> dict[str, Any]:
    plain = typing.get_origin(cls) or cls
    return {a.name: override(rename=json_name(plain, a.name)) for a in attrs.fields(plain)}


def _structure(converter: cattrs.Converter, cls: type[Any]) -> Any:
    generated = make_dict_structure_fn(
        cls, converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True, **_renames(cls)
    )

    def structure(value: Any, kind: Any) -> Any:
        if not isinstance(value, dict):
            raise TypeError(f"expected an object, got {_shown(value)}")
        return generated(value, kind)

    return structure


def _unstructure(converter: cattrs.Converter, cls: type[Any]) -> Any:
    renames: dict[str, Any] = {
        a.name: override(rename=json_name(cls, a.name), omit_if_default=True) for a in attrs.fields(cls)
    }
    return make_dict_unstructure_fn(cls, converter, **renames)


converter = _build()


def structure(data: object, cls: type[T], *, path: str = "", what: str = "") -> T:
    """Read JSON data as ``cls``; all bad fields are in one InvalidError.

    Args:
        data: what ``json.loads`` gave.
        path: where in the document ``data`` lies (``spec``); prefixes every field.
        what: names the document in the message (``Bundle "shop"``); the class name without it.
    """
    try:
        return converter.structure(data, cls)
    except Exception as exc:
        causes = _causes(exc, cls, path)
        named = what or cls.__name__
        shown = "; ".join(f"{c.field}: {c.message}" if c.field else c.message for c in causes)
        raise InvalidError(f"{named} is invalid: {shown}", causes) from exc


def unstructure(value: object) -> Any:
    """JSON data of an attrs object; fields that have their default value are left out."""
    return converter.unstructure(value)


def _causes(exc: BaseException, cls: type | None, path: str) -> list[FieldError]:
    """Walk cattrs's exception groups down to the fields that failed, translating attribute to JSON names."""
    if isinstance(exc, cattrs.ClassValidationError):
        found: list[FieldError] = []
        owner = typing.get_origin(exc.cl) or exc.cl
        with_notes, without = exc.group_exceptions()
        for inner, note in with_notes:
            field = _join(path, json_name(owner, note.name))
            found += _causes(inner, None, field)
        for inner in without:
            found += _causes(inner, owner, path)
        return found
    if isinstance(exc, cattrs.IterableValidationError):
        found = []
        with_index, without = exc.group_exceptions()
        for inner, position in with_index:
            found += _causes(
                inner,
                None,
                f"{path}[{position.index}]" if isinstance(position.index, int) else _join(path, str(position.index)),
            )
        for inner in without:
            found += _causes(inner, None, path)
        return found
    if isinstance(exc, ForbiddenExtraKeysError):
        owner = typing.get_origin(exc.cl) or exc.cl
        allowed = ", ".join(sorted(json_name(owner, a.name) for a in attrs.fields(owner)))
        return [
            FieldError(
                _join(path, name), f'unknown field "{_join(path, name)}"; known here: {allowed}', "FieldValueForbidden"
            )
            for name in sorted(exc.extra_fields)
        ]
    if isinstance(exc, KeyError):
        # A required field that is absent; cattrs notes the attribute, the path already ends in it.
        return [FieldError(path, "is required", "FieldValueRequired")]
    if isinstance(exc, InvalidError) and exc.causes:
        return [FieldError(_join(path, c.field), c.message, c.reason) for c in exc.causes]
    return [FieldError(path, str(exc) or type(exc).__name__)]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name


def _word(kind: type) -> str:
    return {str: "a string", int: "an integer", bool: "true or false", float: "a number"}.get(kind, kind.__name__)


def _shown(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    return repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
