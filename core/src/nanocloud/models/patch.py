"""The three ways to change an object by a patch document: JSON patch, merge patch, strategic merge patch.

Patches never change what they are given; they return a new document. Server-side apply is no patch but a merge of
owned fields and lives with the API server.

Sources: RFC 6902; RFC 7386; Kubernetes, "Strategic Merge Patch in the Kubernetes API Machinery".
"""

from __future__ import annotations

import copy
from typing import Any

from nanocloud.errors import BadRequestError, FieldError, InvalidError
from nanocloud.models.schema import MERGE_KEY, Schema

MAX_OPERATIONS = 10_000
_MAX_NODES = 200_000  # "copy" can double a document with each operation
_DIRECTIVE, _SET_ORDER, _DELETE_FROM = "$patch", "$setElementOrder/", "$deleteFromPrimitiveList/"
_RETAIN = "$retainKeys"


def merge_patch(document: Any, patch: Any) -> Any:
    """RFC 7386: a null removes, an object merges, anything else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(document) if isinstance(document, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


# ---- JSON patch ------------------------------------------------------------------------------------------------------


def json_patch(document: Any, operations: Any) -> Any:
    """RFC 6902.

    Raises:
        BadRequestError: the patch is no list of operations.
        InvalidError: an operation cannot be carried out: a missing path, or a ``test`` that fails.
    """
    if not isinstance(operations, list):
        raise BadRequestError("a JSON patch must be a list of operations")
    if len(operations) > MAX_OPERATIONS:
        raise BadRequestError(f"a JSON patch has at most {MAX_OPERATIONS} operations, this one {len(operations)}")
    root = {"": copy.deepcopy(document)}
    for index, operation in enumerate(operations):
        _operate(root, operation, index)
    return root[""]


def _operate(root: dict[str, Any], operation: Any, index: int) -> None:
    if not isinstance(operation, dict) or not isinstance(operation.get("path"), str):
        raise BadRequestError(f"JSON patch operation {index} must be an object with a path")
    op, path = operation.get("op"), _pointer(operation["path"])
    if op in ("add", "replace", "test") and "value" not in operation:
        raise BadRequestError(f"JSON patch operation {index} ({op}) needs a value")
    try:
        if op == "add":
            _add(root, path, copy.deepcopy(operation["value"]))
        elif op == "remove":
            _remove(root, path)
        elif op == "replace":
            _get(root, path)
            _put(root, path, copy.deepcopy(operation["value"]))
        elif op in ("move", "copy"):
            _transfer(root, op, _pointer(str(operation.get("from", "?"))), path)
        elif op == "test":
            if not _equal(_get(root, path), operation["value"]):
                raise ValueError("the value differs")
        else:
            raise BadRequestError(f"JSON patch operation {index}: unknown op {op!r}")
    except (KeyError, IndexError, TypeError, ValueError) as exc:
        why = str(exc) if type(exc) is ValueError else "no such path"
        message = f'the server rejected our request: JSON patch operation {index} ({op} "{operation["path"]}"): {why}'
        raise InvalidError(message, [FieldError(operation["path"], why)]) from exc


def _pointer(text: str) -> list[str]:
    if text and not text.startswith("/"):
        raise BadRequestError(f'JSON pointer "{text}" must be empty or begin with /')
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")]


def _index(container: list[Any], part: str, *, grow: bool = False) -> int:
    if part == "-" and grow:
        return len(container)
    if not part.isascii() or not part.isdigit() or (len(part) > 1 and part[0] == "0"):
        raise KeyError(part)
    position = int(part)
    if position > len(container) - (0 if grow else 1):
        raise IndexError(part)
    return position


def _get(root: Any, path: list[str]) -> Any:
    found = root
    for part in path:
        if isinstance(found, list):
            found = found[_index(found, part)]
        elif isinstance(found, dict):
            found = found[part]
        else:
            raise KeyError(part)
    return found


def _add(root: Any, path: list[str], value: Any) -> None:
    parent = _get(root, path[:-1])
    if isinstance(parent, list):
        parent.insert(_index(parent, path[-1], grow=True), value)
    elif isinstance(parent, dict):
        parent[path[-1]] = value
    else:
        raise KeyError(path[-1])


def _put(root: Any, path: list[str], value: Any) -> None:
    parent = _get(root, path[:-1])
    parent[_index(parent, path[-1]) if isinstance(parent, list) else path[-1]] = value


def _remove(root: Any, path: list[str]) -> None:
    if len(path) == 1:
        raise ValueError("the whole document cannot be removed")
    parent = _get(root, path[:-1])
    del parent[_index(parent, path[-1]) if isinstance(parent, list) else path[-1]]


def _transfer(root: dict[str, Any], op: str, source: list[str], target: list[str]) -> None:
    value = copy.deepcopy(_get(root, source))
    if op == "move":
        if target[: len(source)] == source and target != source:
            raise ValueError("a value cannot be moved into itself")
        _remove(root, source)
    elif _count(root) + _count(value) > _MAX_NODES:
        raise ValueError(f"the document would have more than {_MAX_NODES} values")
    _add(root, target, value)


def _count(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(_count, value.values()))
    return 1 + sum(map(_count, value)) if isinstance(value, list) else 1


def _equal(left: Any, right: Any) -> bool:
    """JSON equality: Python thinks that True is 1."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(left[k], right[k]) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


# ---- strategic merge patch -------------------------------------------------------------------------------------------


def strategic_merge_patch(document: Any, patch: Any, schema: Schema) -> Any:
    """Merge as the schema says: lists with a merge key are merged entry by entry, other lists replaced.

    Raises:
        BadRequestError: the patch is no object, or a directive that is not known.
    """
    if not isinstance(patch, dict):
        raise BadRequestError("a strategic merge patch must be an object")
    return _merge(document if isinstance(document, dict) else {}, patch, schema)


def _merge(current: dict[str, Any], patch: dict[str, Any], schema: Schema) -> dict[str, Any]:
    directive = patch.get(_DIRECTIVE)
    if directive == "replace":
        return {k: copy.deepcopy(v) for k, v in patch.items() if k != _DIRECTIVE}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise BadRequestError(f"unknown $patch directive {directive!r}; allowed: merge, replace, delete")
    merged = dict(current)
    if isinstance(retained := patch.get(_RETAIN), list):
        merged = {k: v for k, v in merged.items() if k in retained}
    for name, value in patch.items():
        if name.startswith("$"):
            continue
        inner = schema.get("properties", {}).get(name) or schema.get("additionalProperties") or {}
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            base = merged.get(name)
            merged[name] = _merge(base if isinstance(base, dict) else {}, value, inner)
        elif isinstance(value, list) and inner.get("x-kubernetes-patch-strategy") == "merge":
            base = merged.get(name)
            merged[name] = _merge_list(base if isinstance(base, list) else [], value, inner)
        else:
            merged[name] = copy.deepcopy(value)
    for name, removed in patch.items():
        if name.startswith(_DELETE_FROM) and isinstance(removed, list):
            field = name.removeprefix(_DELETE_FROM)
            merged[field] = [entry for entry in merged.get(field) or [] if entry not in removed]
    for name, order in patch.items():
        if name.startswith(_SET_ORDER) and isinstance(order, list):
            field = name.removeprefix(_SET_ORDER)
            inner = schema.get("properties", {}).get(field, {})
            merged[field] = _ordered(merged.get(field) or [], order, inner.get(MERGE_KEY))
    return {
        k: v for k, v in merged.items() if not (isinstance(v, list) and not v and k not in current and k not in patch)
    }


def _merge_list(current: list[Any], patch: list[Any], schema: Schema) -> list[Any]:
    key = schema.get(MERGE_KEY)
    if key is None:
        return [*current, *(entry for entry in patch if entry not in current)]
    merged = list(current)
    for entry in patch:
        if not isinstance(entry, dict):
            raise BadRequestError(f"an entry of a list that is merged by {key!r} must be an object")
        directive = entry.get(_DIRECTIVE)
        if directive == "replace":
            return [copy.deepcopy(e) for e in patch if isinstance(e, dict) and _DIRECTIVE not in e]
        if key not in entry:
            raise BadRequestError(f"an entry of a list that is merged by {key!r} must have that field")
        at = next((i for i, e in enumerate(merged) if isinstance(e, dict) and e.get(key) == entry[key]), None)
        if directive == "delete":
            merged = [e for e in merged if not (isinstance(e, dict) and e.get(key) == entry[key])]
        elif at is None:
            merged.append(_merge({}, entry, schema.get("items", {})))
        else:
            merged[at] = _merge(merged[at], entry, schema.get("items", {}))
    return merged


def _ordered(entries: list[Any], order: list[Any], key: str | None) -> list[Any]:
    """Entries named by ``order`` in that order; the others keep their place behind what stood before them."""

    def mark(entry: Any) -> Any:
        return entry.get(key) if key and isinstance(entry, dict) else entry

    places = {repr(mark(entry)): index for index, entry in enumerate(order)}
    result = sorted((e for e in entries if repr(mark(e)) in places), key=lambda e: places[repr(mark(e))])
    for index, entry in enumerate(entries):
        if repr(mark(entry)) in places:
            continue
        before = next((e for e in reversed(entries[:index]) if e in result), None)
        result.insert(result.index(before) + 1 if before is not None else 0, entry)
    return result
