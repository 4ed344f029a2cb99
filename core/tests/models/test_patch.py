"""Patch documents, by the examples of their specifications and by properties."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanocloud.errors import BadRequestError, InvalidError
from nanocloud.models.patch import json_patch, merge_patch, strategic_merge_patch
from nanocloud.models.pod import POD

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


# RFC 7386, appendix A.
@pytest.mark.parametrize(
    ("original", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch(original: Any, patch: Any, result: Any) -> None:
    before = copy.deepcopy(original)
    assert merge_patch(original, patch) == result
    assert original == before


# RFC 6902, appendix A.
@pytest.mark.parametrize(
    ("document", "operations", "result"),
    [
        ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
        ({"foo": ["a", "c"]}, [{"op": "add", "path": "/foo/1", "value": "b"}], {"foo": ["a", "b", "c"]}),
        ({"foo": ["a"]}, [{"op": "add", "path": "/foo/-", "value": ["b"]}], {"foo": ["a", ["b"]]}),
        ({"foo": ["a", "b"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["a"]}),
        ({"a": 1}, [{"op": "replace", "path": "/a", "value": 2}], {"a": 2}),
        ({"a": 1}, [{"op": "replace", "path": "", "value": [1]}], [1]),
        ({"a": {"b": 1}, "c": {}}, [{"op": "move", "from": "/a/b", "path": "/c/d"}], {"a": {}, "c": {"d": 1}}),
        ({"a": ["x", "y", "z"]}, [{"op": "move", "from": "/a/0", "path": "/a/2"}], {"a": ["y", "z", "x"]}),
        ({"a": [1]}, [{"op": "copy", "from": "/a", "path": "/b"}], {"a": [1], "b": [1]}),
        ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
        ({"a/b": 1}, [{"op": "remove", "path": "/a~1b"}], {}),
    ],
)
def test_json_patch(document: Any, operations: Any, result: Any) -> None:
    before = copy.deepcopy(document)
    assert json_patch(document, operations) == result
    assert document == before


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/a", "value": "1"},
        {"op": "test", "path": "/flag", "value": 1},
        {"op": "remove", "path": "/none"},
        {"op": "replace", "path": "/none", "value": 1},
        {"op": "add", "path": "/list/9", "value": 1},
        {"op": "add", "path": "/list/01", "value": 1},
        {"op": "remove", "path": "/list/-"},
        {"op": "add", "path": "/a/b", "value": 1},
        {"op": "move", "from": "/deep", "path": "/deep/x"},
        {"op": "remove", "path": ""},
    ],
)
def test_an_operation_that_cannot_be_done_names_itself(operation: Any) -> None:
    document = {"a": 1, "flag": True, "list": [1], "deep": {"x": {}}}
    with pytest.raises(InvalidError, match="JSON patch operation 0"):
        json_patch(document, [operation])


@pytest.mark.parametrize(
    "operations",
    [
        {},
        [1],
        [{"op": "add"}],
        [{"op": "add", "path": "/a"}],
        [{"op": "no", "path": "/a"}],
        [{"op": "test", "path": "a", "value": 1}],
        [{}] * 10_001,
    ],
)
def test_what_is_no_json_patch_is_refused(operations: Any) -> None:
    with pytest.raises(BadRequestError):
        json_patch({"a": 1}, operations)


def test_copies_cannot_blow_a_document_up() -> None:
    operations = [{"op": "copy", "from": "", "path": f"/c{index}"} for index in range(40)]
    with pytest.raises(InvalidError, match="more than 200000 values"):
        json_patch({"a": [1] * 10}, operations)


@given(JSON, JSON)
def test_replacing_the_whole_gives_the_value(document: Any, value: Any) -> None:
    assert json_patch(document, [{"op": "add", "path": "", "value": value}]) == value


@given(JSON, JSON)
def test_a_merge_patch_applied_twice_changes_nothing_more(document: Any, patch: Any) -> None:
    once = merge_patch(document, patch)
    assert merge_patch(once, patch) == once


def containers(pod: Any) -> list[tuple[str, str | None]]:
    return [(c["name"], c.get("image")) for c in pod["spec"]["containers"]]


def strategic(patch: Any) -> Any:
    pod = {
        "metadata": {"name": "p", "finalizers": ["a", "b"]},
        "spec": {"containers": [{"name": "one", "image": "1", "args": ["x"]}, {"name": "two", "image": "2"}]},
    }
    return strategic_merge_patch(pod, patch, POD.full_schema)


def test_lists_with_a_merge_key_are_merged() -> None:
    patched = strategic({"spec": {"containers": [{"name": "two", "image": "9"}, {"name": "three", "image": "3"}]}})
    assert containers(patched) == [("one", "1"), ("two", "9"), ("three", "3")]


def test_lists_without_one_are_replaced_and_nulls_remove() -> None:
    patched = strategic({"spec": {"containers": [{"name": "one", "args": ["y", "z"], "image": None}]}})
    assert patched["spec"]["containers"][0] == {"name": "one", "args": ["y", "z"]}


def test_directives() -> None:
    gone = strategic({"spec": {"containers": [{"name": "one", "$patch": "delete"}]}})
    assert containers(gone) == [("two", "2")]
    replaced = strategic({"spec": {"containers": [{"$patch": "replace"}, {"name": "new"}]}})
    assert containers(replaced) == [("new", None)]
    assert strategic({"spec": {"$patch": "replace", "nodeName": "n"}})["spec"] == {"nodeName": "n"}
    dropped = strategic({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}})
    assert dropped["metadata"]["finalizers"] == ["b"]
    assert strategic({"metadata": {"finalizers": ["b", "c"]}})["metadata"]["finalizers"] == ["a", "b", "c"]
    ordered = strategic(
        {"spec": {"$setElementOrder/containers": [{"name": "two"}, {"name": "one"}], "containers": [{"name": "one"}]}}
    )
    assert containers(ordered) == [("two", "2"), ("one", "1")]
    with pytest.raises(BadRequestError, match="unknown \\$patch directive"):
        strategic({"$patch": "explode"})
    with pytest.raises(BadRequestError, match="must have that field"):
        strategic({"spec": {"containers": [{"image": "x"}]}})
