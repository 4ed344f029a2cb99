"""YAML as YAML 1.2 means it, and nothing that could hurt."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanocloud.errors import BadRequestError
from nanocloud.models.manifest import dump_yaml, load_yaml

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]))
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on: no", {"on": "no"}),
        ("a: 012", {"a": "012"}),
        ("a: 1:30", {"a": "1:30"}),
        ("a: 2026-01-01", {"a": "2026-01-01"}),
        ("a: 0x1f", {"a": "0x1f"}),
        ("a: [1, -2, 1.5, 1e3, true, null, ~]", {"a": [1, -2, 1.5, 1000.0, True, None, None]}),
        ('{"json": "too"}', {"json": "too"}),
    ],
)
def test_plain_words_keep_their_meaning(text: str, value: Any) -> None:
    assert load_yaml(text) == [value]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\na: 2", 'line 2, column 1: the key "a" appears twice'),
        ("a: &x 1\nb: *x", "anchors and aliases"),
        ("1: 2", "must be text"),
        ("a: [", "line"),
        ("a: !!python/name:os.system x", "tag"),
        ("a: !!binary aGk=", "tag"),
        ("a: !!timestamp 2026-01-01", "tag"),
        ("[" * 101, "deeper than 100"),
    ],
)
def test_what_is_refused_and_where(text: str, problem: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        load_yaml(text)
    assert problem in str(caught.value)


def test_documents() -> None:
    assert load_yaml("---\na: 1\n---\n# nothing\n---\nb: 2\n") == [{"a": 1}, {"b": 2}]


def test_shared_parts_are_written_out() -> None:
    shared = {"x": "1"}
    text = dump_yaml({"a": shared, "b": shared})
    assert "&" not in text
    assert load_yaml(text) == [{"a": shared, "b": shared}]


@given(st.dictionaries(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1), SCALARS))
def test_what_is_written_reads_back(document: Any) -> None:
    assert load_yaml(dump_yaml(document)) == [document]
