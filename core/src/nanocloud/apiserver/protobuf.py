"""Reads the few protobuf bodies that kubectl sends: typed ``create`` commands and reviews, since kubectl 1.32.

A body is ``k8s\\0`` and a ``runtime.Unknown`` whose ``raw`` is the message. Only the messages and fields below are
known; other fields are skipped as protobuf demands. Answers are JSON, which every client takes.

Sources: Kubernetes API concepts, "Protobuf encoding"; the ``generated.proto`` files of k8s.io/api and apimachinery.
"""

from __future__ import annotations

import base64
from typing import Any, TypeAlias

from nanocloud.errors import BadRequestError
from nanocloud.models.meta import timestamp

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"

# A field is (JSON name, how to read it): a type word, a nested message, or one of these in a list for repeated ones.
Reader: TypeAlias = "str | Message | list[str | Message]"
Message: TypeAlias = "dict[int, tuple[str, Reader]]"

_TIME: Message = {1: ("seconds", "int")}
_OWNER: Message = {
    5: ("apiVersion", "str"),
    1: ("kind", "str"),
    3: ("name", "str"),
    4: ("uid", "str"),
    6: ("controller", "bool"),
    7: ("blockOwnerDeletion", "bool"),
}
_META: Message = {
    1: ("name", "str"),
    2: ("generateName", "str"),
    3: ("namespace", "str"),
    5: ("uid", "str"),
    6: ("resourceVersion", "str"),
    7: ("generation", "int"),
    8: ("creationTimestamp", "time"),
    11: ("labels", "map str"),
    12: ("annotations", "map str"),
    13: ("ownerReferences", [_OWNER]),
    14: ("finalizers", ["str"]),
}
_RESOURCE_ATTRIBUTES: Message = {
    number: (name, "str")
    for number, name in enumerate(("namespace", "verb", "group", "version", "resource", "subresource", "name"), start=1)
}
_MESSAGES: dict[str, Message] = {
    "ConfigMap": {
        1: ("metadata", _META),
        2: ("data", "map str"),
        3: ("binaryData", "map bytes"),
        4: ("immutable", "bool"),
    },
    "Secret": {
        1: ("metadata", _META),
        2: ("data", "map bytes"),
        3: ("type", "str"),
        4: ("stringData", "map str"),
        5: ("immutable", "bool"),
    },
    "Namespace": {
        1: ("metadata", _META),
        2: ("spec", {1: ("finalizers", ["str"])}),
        3: ("status", {1: ("phase", "str")}),
    },
    "SelfSubjectReview": {1: ("metadata", _META)},
    "SelfSubjectAccessReview": {
        1: ("metadata", _META),
        2: (
            "spec",
            {
                1: ("resourceAttributes", _RESOURCE_ATTRIBUTES),
                2: ("nonResourceAttributes", {1: ("path", "str"), 2: ("verb", "str")}),
            },
        ),
    },
    "SelfSubjectRulesReview": {1: ("metadata", _META), 2: ("spec", {1: ("namespace", "str")})},
}


def decode(body: bytes) -> dict[str, Any]:
    """The object of a protobuf body.

    Raises:
        BadRequestError: no Kubernetes protobuf, broken, or a kind that is not read here.
    """
    if not body.startswith(_MAGIC):
        raise BadRequestError("the body is no Kubernetes protobuf: it must begin with k8s\\0")
    try:
        outer = _read(body[4:], {1: ("type", {1: ("apiVersion", "str"), 2: ("kind", "str")}), 2: ("raw", "raw")})
        kind = outer.get("type", {}).get("kind", "")
        if kind not in _MESSAGES:
            raise BadRequestError(f"a {kind or 'nameless kind'} is not read as protobuf; send application/json")
        return {**outer["type"], **_read(outer.get("raw", b""), _MESSAGES[kind])}
    except (IndexError, ValueError, KeyError, OverflowError, OSError) as exc:
        raise BadRequestError(f"the protobuf body is broken: {exc}") from exc


def _read(data: object, message: Message) -> dict[str, Any]:
    if not isinstance(data, bytes):
        raise ValueError("a number stands where a message belongs")
    found: dict[str, Any] = {}
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        value, position = _value(data, position, tag & 7)
        if tag >> 3 not in message:
            continue
        name, reader = message[tag >> 3]
        if isinstance(reader, list):
            found.setdefault(name, []).append(_interpret(value, reader[0]))
        elif isinstance(reader, str) and reader.startswith("map "):
            entry = _read(value, {1: ("key", "str"), 2: ("value", reader.removeprefix("map "))})
            found.setdefault(name, {})[entry.get("key", "")] = entry.get("value", "")
        else:
            value = _interpret(value, reader)
            if value not in ("", None):
                found[name] = value
    return found


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


def _value(data: bytes, position: int, wire: int) -> tuple[Any, int]:
    if wire == 0:
        return _varint(data, position)
    if wire == 2:
        length, position = _varint(data, position)
    elif wire in (1, 5):
        length = 8 if wire == 1 else 4
    else:
        raise ValueError(f"unknown wire type {wire}")
    end = position + length
    if end > len(data):
        raise ValueError("it ends early")
    return data[position:end], end


def _interpret(value: Any, reader: str | Message) -> Any:
    if isinstance(reader, dict):
        return _read(_bytes(value), reader)
    if reader == "time":
        seconds = _read(_bytes(value), _TIME).get("seconds", 0)
        return timestamp(seconds) if 0 < seconds < 1 << 35 else None
    if reader in ("int", "bool"):
        if not isinstance(value, int):
            raise ValueError("a number was expected")
        return bool(value) if reader == "bool" else value
    text = _bytes(value)
    return text if reader == "raw" else base64.b64encode(text).decode() if reader == "bytes" else text.decode()


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("bytes were expected")
    return value
