"""The schema takes what resolution takes; a small validator here knows just the words that the schema uses."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import trio
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from nanocloud.errors import InvalidError, LabelError
from nanocloud.planning import describe_image, options_schema, select_services
from nanocloud.planning.reserved import MAX_VALUE_LENGTH, check_value
from nanocloud.testkit.planning import MARIADB_EXPORTS, WORDPRESS, contract_of, resolve_label, target, values

KNOWN = {"type", "enum", "maxLength", "pattern", "default", "description", "writeOnly"}


def accepts(schema: dict[str, Any], given: dict[str, str]) -> bool:
    """JSON Schema 2020-12, as far as the schema goes; a word that is not known here fails the test."""
    assert set(schema) <= {"$schema", "type", "properties", "additionalProperties", "required"}
    assert (schema["type"], schema["additionalProperties"]) == ("object", False)
    if not set(schema.get("required", ())) <= set(given) <= set(schema["properties"]):
        return False
    return all(_accepts_value(schema["properties"][name], value) for name, value in given.items())


def _accepts_value(schema: dict[str, Any], value: str) -> bool:
    assert {word for word in schema if not word.startswith("x-nanocloud-")} <= KNOWN
    assert schema["type"] == "string"
    if "enum" in schema:
        return value in schema["enum"]
    pattern = re.sub(r"\$$", r"\\Z", schema.get("pattern", ""))  # the $ of ECMAScript does not pass over a newline
    return len(value) <= schema["maxLength"] and bool(re.search(pattern, value))


def test_the_schema_of_wordpress() -> None:
    schema = options_schema(contract_of(WORDPRESS))
    properties = schema["properties"]
    assert properties["database"] == {
        "type": "string",
        "enum": ["mariadb"],
        "default": "mariadb",
        "x-nanocloud-selects-service": ["mariadb"],
    }
    assert properties["database_transport"] == {"type": "string", "enum": ["plain", "tls", ""]}
    assert properties["database_password"] == {
        "type": "string",
        "maxLength": 32768,
        "x-nanocloud-macro": "!rand 32 alnum",
        "x-nanocloud-secret": True,
        "writeOnly": True,
    }
    assert properties["database_host"] == {"type": "string", "maxLength": 32768, "x-nanocloud-import": "database"}
    size = properties["volume_size_1"]
    assert size["default"] == "1Gi"
    assert size["x-nanocloud-requires"] == ["volume_1"]
    assert size["description"] == "a size such as 10Gi or 500M"
    assert schema["additionalProperties"] is False
    assert "required" not in schema


def test_an_option_that_must_be_given_is_required() -> None:
    assert options_schema(contract_of({"domain": [], "?mail": []}))["required"] == ["domain"]
    assert options_schema(contract_of({"a": ["1"], "b": ["*a", "<$a>"], "c": ["<$a>"]}))["properties"]["b"] == {
        "type": "string",
        "maxLength": MAX_VALUE_LENGTH,
        "x-nanocloud-template": "<$a>",
        "x-nanocloud-requires": ["a"],
    }
    # A selected service may supply it.
    assert "required" not in options_schema(contract_of({"db=&mariadb": ["*db_port"], "db_port": []}))


def test_an_image_is_described_whole() -> None:
    labels = {
        "io.nanocloud.options": json.dumps(WORDPRESS),
        "io.nanocloud.exports": json.dumps({**MARIADB_EXPORTS, "owned": {"create_user": [2, 1]}}),
        "io.nanocloud.capabilities": '["CAP_CHOWN"]',
    }
    described = describe_image(labels)
    assert described["schema"] == options_schema(contract_of(WORDPRESS))
    assert described["services"] == {"database": ["mariadb"]}
    assert described["bindings"] == [
        {
            "option": "database",
            "command": "create_user",
            "arguments": ["$database_name", "$database_user", "$database_password"],
            "when": "database=mariadb",
        },
        {
            "option": "database",
            "command": "require_tls",
            "arguments": ["$database_user"],
            "when": "database_transport=tls",
        },
    ]
    assert described["exports"] == {
        "options": sorted(MARIADB_EXPORTS["options"]),
        "bindings": ["create_user", "require_tls"],
        "owned": {"create_user": [2, 1]},
    }
    assert described["capabilities"] == ["CAP_CHOWN"]
    assert json.loads(json.dumps(described)) == described


FORMED = [
    ("port_1", "80"),
    ("port_1", "65535/udp"),
    ("port_1", "8080->80"),
    ("port_1", "127.0.0.1:8080->80/tcp"),
    ("port_1", "[::1]:1->1/udp"),
    ("port_1", "65536"),
    ("port_1", "0"),
    ("port_1", "080"),
    ("port_1", "http"),
    ("port_1", "80/icmp"),
    ("port_1", "->80"),
    ("port_1", "80\n"),
    ("volume_size_1", "10Gi"),
    ("volume_size_1", "1.5G"),
    ("volume_size_1", "1e9"),
    ("volume_size_1", "big"),
    ("volume_size_1", "1Gi\n"),
    ("volume_1", "/data"),
    ("volume_1", "data"),
    ("volume_1", "/"),
    ("volume_encrypted_1", "key:xfs"),
    ("volume_encrypted_1", "../key"),
    ("secret_env_A", "?mine:key"),
    ("secret_env_A", "mine"),
]


@pytest.mark.parametrize(("name", "value"), FORMED)
def test_the_form_of_reserved_names_is_in_the_schema(name: str, value: str) -> None:
    settings = {name: []} if name in ("port_1", "volume_1", "secret_env_A") else {"volume_1": ["/data"], name: []}
    try:
        check_value(name, value)
    except ValueError:
        good = False
    else:
        good = True
    assert accepts(options_schema(contract_of(settings)), {name: value}) is good


OPTIONS = ("a", "b", "port_1", "volume_size_1", "runtime_args", "a_port")
VALUES = st.sampled_from(["1", "2", "", "80", "8080->80/tcp", "1Gi", "mariadb", "$a", "[1]", "x" * 40000]) | st.text()
TOKENS = st.lists(st.sampled_from(["*a", "*a=1", "*a_port", "80", "!rand 8 hex", "!nope"]), max_size=2, unique=True)
CHOSEN = st.lists(st.sampled_from(["1", "2", "80", "&mariadb"]), min_size=1, max_size=3, unique=True)


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, list[str]], dict[str, str]]:
    settings: dict[str, list[str]] = {}
    for name in draw(st.lists(st.sampled_from(OPTIONS), min_size=1, unique=True)):
        key = draw(st.sampled_from(["", "?"])) + name
        shape = draw(TOKENS | CHOSEN.map(tuple))
        settings |= {f"{key}={choice}": [] for choice in shape} if isinstance(shape, tuple) else {key: shape}
        if name == "volume_size_1":
            settings["volume_1"] = ["/data"]
    return settings, draw(st.dictionaries(st.sampled_from([*OPTIONS, "nope"]), VALUES, max_size=3))


@settings(max_examples=400)
@given(cases())
def test_what_resolution_accepts_the_schema_accepts(case: tuple[dict[str, list[str]], dict[str, str]]) -> None:
    settings, given = case

    async def run() -> None:
        await resolve_label(settings, given, targets=[await target()])

    try:
        contract = contract_of(settings)
        trio.run(run)
    except LabelError:
        assume(False)
    except InvalidError:
        return
    event("resolved")
    assert accepts(options_schema(contract), given)


FREE = st.tuples(st.sampled_from([[], ["*a"], ["*a=1"]]), st.sampled_from(["1", "$a", "x$a", "!rand 8 hex"]))


@given(
    st.permutations(["1", "2", "&mariadb"]),
    st.dictionaries(st.sampled_from("bcd"), st.tuples(st.booleans(), CHOSEN | FREE)),
)
def test_giving_a_default_changes_nothing(a: list[str], shape: dict[str, tuple[bool, Any]]) -> None:
    settings: dict[str, list[str]] = {f"a={choice}": [] for choice in a}
    for name, (optional, found) in shape.items():
        key = f"{'?' if optional else ''}{name}"
        settings |= {f"{key}={c}": [] for c in found} if isinstance(found, list) else {key: [*found[0], found[1]]}

    async def run(given: dict[str, str]) -> dict[str, str]:
        return values(await resolve_label(settings, given, targets=[await target()]))

    schema = options_schema(contract_of(settings))
    try:
        plain = trio.run(run, {})
    except InvalidError:
        return  # what a=... another setting requires does not hold
    event("resolved")
    for name, found in schema["properties"].items():
        if "default" in found and name in plain:  # else what it requires does not hold, and it must not be given
            assert trio.run(run, {name: found["default"]}) == plain


@given(
    st.dictionaries(st.sampled_from("abcd"), st.tuples(st.booleans(), CHOSEN | st.none()), min_size=1),
    st.dictionaries(st.sampled_from("abcde"), VALUES.filter(lambda text: "\0" not in text), max_size=3),
)
def test_of_choices_the_schema_accepts_exactly_what_resolution_accepts(
    shape: dict[str, tuple[bool, list[str] | None]], given: dict[str, str]
) -> None:
    settings: dict[str, list[str]] = {}
    for name, (optional, choices) in shape.items():
        key = f"{'?' if optional else ''}{name}"
        settings |= {key: []} if choices is None else {f"{key}={choice}": [] for choice in choices}
    contract = contract_of(settings)
    needed = {name for name, (optional, choices) in shape.items() if choices is None and not optional}
    try:
        select_services(contract, given)
    except InvalidError:
        good = False
    else:
        good = needed <= set(given)
    assert accepts(options_schema(contract), given) is good


def test_the_longest_value_is_still_accepted() -> None:
    schema = options_schema(contract_of({"a": []}))
    assert accepts(schema, {"a": "x" * MAX_VALUE_LENGTH})
    assert not accepts(schema, {"a": "x" * (MAX_VALUE_LENGTH + 1)})
