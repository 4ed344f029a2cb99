"""JSON to attrs and back: nothing is coerced, and every bad field is told by its path."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest

from nanocloud.errors import FieldError, InvalidError
from nanocloud.models.converter import camel, structure, unstructure


class Colour(enum.Enum):
    RED = "Red"
    BLUE = "Blue"


@attrs.frozen(kw_only=True)
class Part:
    part_name: str
    size_bytes: int = 0


@attrs.frozen(kw_only=True)
class Whole:
    __json_names__: ClassVar = {"cluster_ip": "clusterIP"}

    parts: tuple[Part, ...] = ()
    names: list[str] = attrs.field(factory=list)
    more: Sequence[int] = ()
    labels: dict[str, str] = attrs.field(factory=dict)
    tables: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)
    is_on: bool = False
    factor: float = 1.0
    colour: Colour = Colour.RED
    where: Path | None = None
    cluster_ip: str | None = None


FULL = {
    "parts": [{"partName": "a", "sizeBytes": 1}, {"partName": "b"}],
    "names": ["x"],
    "more": [1, 2],
    "labels": {"k": "v"},
    "tables": {"t": {"any": [1, None]}},
    "isOn": True,
    "factor": 2.5,
    "colour": "Blue",
    "where": "/tmp",
    "clusterIP": "10.0.0.1",
}


def test_everything_comes_back_as_it_was() -> None:
    whole = structure(FULL, Whole)
    assert whole.parts == (Part(part_name="a", size_bytes=1), Part(part_name="b"))
    assert (whole.colour, whole.where, whole.cluster_ip) == (Colour.BLUE, Path("/tmp"), "10.0.0.1")
    assert unstructure(whole) == FULL
    assert unstructure(Whole()) == {}


@pytest.mark.parametrize(
    ("data", "field", "told"),
    [
        ({"isOn": "no"}, "isOn", "expected true or false, got 'no'"),
        ({"isOn": 1}, "isOn", "expected true or false, got 1"),
        ({"names": "abc"}, "names", "expected a list, got 'abc'"),
        ({"names": {"a": 1}}, "names", "expected a list, got an object"),
        ({"names": None}, "names", "expected a list, got null"),
        ({"names": ["a", 5]}, "names[1]", "expected a string, got 5"),
        ({"more": "12"}, "more", "expected a list, got '12'"),
        ({"parts": "ab"}, "parts", "expected a list, got 'ab'"),
        ({"parts": [{"partName": "a"}, "b"]}, "parts[1]", "expected an object, got 'b'"),
        ({"parts": [{}]}, "parts[0].partName", "is required"),
        ({"parts": [{"partName": "a", "sizeBytes": True}]}, "parts[0].sizeBytes", "expected an integer, got True"),
        ({"labels": ["a"]}, "labels", "expected an object, got a list"),
        ({"labels": {"a": 1}}, "labels.a", "expected a string, got 1"),
        ({"tables": {"t": []}}, "tables.t", "expected an object, got a list"),
        ({"factor": "2"}, "factor", "expected a number, got '2'"),
        ({"factor": True}, "factor", "expected a number, got True"),
        ({"colour": "Green"}, "colour", "'Green' is not one of Red, Blue"),
        ({"where": 5}, "where", "expected a string, got 5"),
    ],
)
def test_a_bad_value_is_told_by_its_path(data: dict[str, Any], field: str, told: str) -> None:
    with pytest.raises(InvalidError) as caught:
        structure(data, Whole)
    (cause,) = caught.value.causes
    assert (cause.field, cause.message) == (field, told)
    assert str(caught.value) == f"Whole is invalid: {field}: {told}"


def test_all_bad_fields_are_told_at_once_below_the_path_of_the_document() -> None:
    data = {"isOn": 0, "parts": [{"sizeBytes": "1"}], "nmaes": []}
    with pytest.raises(InvalidError) as caught:
        structure(data, Whole, path="spec", what='Bundle "shop"')
    fields = {cause.field for cause in caught.value.causes}
    assert fields == {"spec.isOn", "spec.parts[0].partName", "spec.parts[0].sizeBytes", "spec.nmaes"}
    assert str(caught.value).startswith('Bundle "shop" is invalid: ')


def test_an_unknown_field_lists_what_is_known() -> None:
    with pytest.raises(InvalidError) as caught:
        structure({"part_name": "a"}, Part)
    assert FieldError("partName", "is required", "FieldValueRequired") in caught.value.causes
    unknown = 'unknown field "part_name"; known here: partName, sizeBytes'
    assert FieldError("part_name", unknown, "FieldValueForbidden") in caught.value.causes


@pytest.mark.parametrize("data", [None, [], "x", 5, True])
def test_a_document_that_is_no_object(data: object) -> None:
    with pytest.raises(InvalidError, match="Whole is invalid: expected an object, got"):
        structure(data, Whole)


def test_a_whole_number_is_a_number() -> None:
    assert structure({"factor": 2}, Whole).factor == 2.0


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(InvalidError) as caught:
        structure({"isOn": "x" * 5000}, Whole)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("name", "json_name"), [("host_port", "hostPort"), ("x", "x"), ("cluster_ip", "clusterIp"), ("_private", "private")]
)
def test_names_in_json(name: str, json_name: str) -> None:
    assert camel(name) == json_name
