"""Schemas: what they accept, fill in, drop, and how they are made from classes."""

from __future__ import annotations

from typing import Any

import pytest

from nanocloud.models import schema as schemas
from nanocloud.models.builtin import builtin_registry
from nanocloud.models.bundle import BUNDLE, BundleSpec, spec_of
from nanocloud.models.core import CONFIG_MAP, SECRET
from nanocloud.models.kinds import ResourceKind
from nanocloud.models.pod import POD

SCHEMA = schemas.fields(
    {
        "name": schemas.string(maxLength=5, pattern="^[a-z]+$"),
        "count": schemas.integer(minimum=1, maximum=9, default=3),
        "mode": schemas.string(enum=["a", "b"]),
        "labels": schemas.mapping(),
        "ports": schemas.array(
            schemas.fields({"port": schemas.integer(), "on": schemas.boolean(default=True)}), key="port"
        ),
        "at": schemas.time(),
        "size": schemas.quantity(),
        "target": schemas.int_or_string(),
        "data": schemas.string(format="byte"),
        "maybe": schemas.string(nullable=True),
        "free": schemas.anything(),
    },
    required=("name",),
)


@pytest.mark.parametrize(
    ("value", "field", "message"),
    [
        ({}, "name", "is required"),
        ({"name": None}, "name", "is required"),
        ({"name": 5}, "name", "must be a string, not 5"),
        ({"name": "abcdef"}, "name", "longer than 5"),
        ({"name": "A"}, "name", "must match"),
        ({"name": "a", "count": True}, "count", "must be an integer, not true"),
        ({"name": "a", "count": 10}, "count", "1 to 9"),
        ({"name": "a", "mode": "c"}, "mode", 'one of "a", "b"'),
        ({"name": "a", "labels": {"x": 1}}, "labels.x", "must be a string"),
        ({"name": "a", "ports": {}}, "ports", "must be a list, not an object"),
        ({"name": "a", "ports": [{"port": "1"}]}, "ports[0].port", "must be an integer"),
        ({"name": "a", "ports": [{"port": 1}, {"port": 1}]}, "ports[1].port", "appears twice"),
        ({"name": "a", "at": "yesterday"}, "at", "RFC 3339"),
        ({"name": "a", "at": "2026-01-01"}, "at", "RFC 3339"),
        ({"name": "a", "size": "1 GB"}, "size", "not a quantity"),
        ({"name": "a", "target": 1.5}, "target", "an integer or a string"),
        ({"name": "a", "data": "%%%"}, "data", "base64"),
        ({"name": "a", "other": 1}, "other", "not a known field"),
    ],
)
def test_each_bad_field_is_named(value: Any, field: str, message: str) -> None:
    [cause] = schemas.check(value, SCHEMA)
    assert cause.field == field
    assert message in cause.message


def test_good_values_pass() -> None:
    value = {
        "name": "abc",
        "at": "2026-11-22T22:00:00Z",
        "size": "1.5Gi",
        "target": "http",
        "data": "aGk=",
        "maybe": None,
        "free": {"x": [1, {"y": None}]},
    }
    assert schemas.check(value, SCHEMA) == []
    assert schemas.prune(value, SCHEMA) == []


def test_defaults_reach_into_lists_and_drop_nulls() -> None:
    value: Any = {"name": "a", "mode": None, "maybe": None, "ports": [{"port": 1}, {"port": 2, "on": False}]}
    schemas.apply_defaults(value, SCHEMA)
    assert value == {
        "name": "a",
        "count": 3,
        "maybe": None,
        "ports": [{"port": 1, "on": True}, {"port": 2, "on": False}],
    }


def test_pruning_names_what_it_drops() -> None:
    value: Any = {"name": "a", "x": 1, "ports": [{"port": 1, "y": 2}], "free": {"z": 1}}
    assert schemas.prune(value, SCHEMA) == ["x", "ports[0].y"]
    assert value == {"name": "a", "ports": [{"port": 1}], "free": {"z": 1}}


def test_a_class_becomes_the_schema_that_its_objects_pass() -> None:
    made = schemas.of_class(BundleSpec)
    assert made["required"] == ["service"]
    assert made["properties"]["image"]["nullable"] is True
    assert made["properties"]["start"]["default"] is True
    obj = BUNDLE.validate({"metadata": {"name": "a", "namespace": "n"}, "spec": {"service": "a", "deps": False}})
    assert spec_of(obj) == BundleSpec(service="a", deps=False)


@pytest.mark.parametrize("kind", list(builtin_registry()), ids=lambda kind: kind.kind)
def test_every_kind_is_consistent(kind: ResourceKind) -> None:
    properties = kind.full_schema["properties"]
    assert kind.has_status is ("status" in properties)
    assert set(kind.encrypted) <= set(properties)
    assert kind.schema["description"]

    def described(schema: schemas.Schema) -> None:
        assert schema.get("type") or schemas.PRESERVE in schema or schemas.INT_OR_STRING in schema
        for inner in (*schema.get("properties", {}).values(), *(schema[k] for k in ("items",) if k in schema)):
            described(inner)

    described(kind.full_schema)


def test_a_pod_is_filled_in_as_kubectl_expects_it() -> None:
    pod = POD.validate({"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [{"name": "c"}]}})
    assert pod["spec"]["restartPolicy"] == "Always"
    assert pod["spec"]["containers"][0]["resources"] == {}
    assert pod["status"] == {"phase": "Pending"}


def test_string_data_wins_and_is_folded_in() -> None:
    secret = SECRET.validate(
        {"metadata": {"name": "s", "namespace": "n"}, "data": {"a": "YQ==", "b": "Yg=="}, "stringData": {"a": "x"}}
    )
    assert secret["data"] == {"a": "eA==", "b": "Yg=="}
    assert "stringData" not in secret


def test_frozen_data_stays() -> None:
    old = {"metadata": {"name": "c"}, "data": {"a": "1"}, "immutable": True}
    with pytest.raises(Exception, match="data: cannot be changed"):
        CONFIG_MAP.validate_change(old, old | {"data": {"a": "2"}})
    with pytest.raises(Exception, match="immutable: cannot be unset"):
        CONFIG_MAP.validate_change(old, {"metadata": {"name": "c"}, "data": {"a": "1"}})
