"""Protobuf bodies, as kubectl 1.33 wrote them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanocloud.apiserver.protobuf import decode
from nanocloud.errors import BadRequestError


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def body(kind: bytes, raw: bytes) -> bytes:
    return b"k8s\0" + field(1, field(1, b"v1") + field(2, kind)) + field(2, raw) + field(3, b"") + field(4, b"")


def test_a_config_map() -> None:
    meta = (
        field(1, b"c") + field(3, b"shop") + field(8, b"") + field(11, field(1, b"k") + field(2, b"v")) + field(99, 7)
    )
    raw = (
        field(1, meta)
        + field(2, field(1, b"a") + field(2, b"1"))
        + field(3, field(1, b"b") + field(2, b"\xff"))
        + field(4, 1)
    )
    assert decode(body(b"ConfigMap", raw)) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c", "namespace": "shop", "labels": {"k": "v"}},
        "data": {"a": "1"},
        "binaryData": {"b": "/w=="},
        "immutable": True,
    }


def test_a_secret_and_a_namespace() -> None:
    raw = field(1, field(1, b"s")) + field(2, field(1, b"p") + field(2, b"hunter2")) + field(3, b"Opaque")
    decoded = decode(body(b"Secret", raw))
    assert (decoded["data"], decoded["type"]) == ({"p": "aHVudGVyMg=="}, "Opaque")
    raw = field(1, field(1, b"shop")) + field(2, b"") + field(3, b"")
    assert decode(body(b"Namespace", raw))["metadata"] == {"name": "shop"}


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"k8s\0\xff", body(b"Pod", b""), body(b"ConfigMap", b"\x0a\x05a"), b"k8s\0\x0b"]
)
def test_what_cannot_be_read_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequestError):
        decode(data)


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(raw: bytes) -> None:
    try:
        found: Any = decode(body(b"Secret", raw))
    except BadRequestError:
        return
    assert found["kind"] == "Secret"
