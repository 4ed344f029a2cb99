from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nanocloud.errors import LabelError
from nanocloud.planning.contract import BindingTemplate, Default, Import, Requirement
from nanocloud.planning.exports import parse_exports
from nanocloud.planning.label import image_contract, parse_options
from nanocloud.testkit.planning import WORDPRESS, contract_of


def test_every_decoration_is_read() -> None:
    contract = contract_of(
        {
            "?database=&mariadb": ["*database_host", "&create_user  $name --all"],
            "?database=sqlite": [],
            "name": ["wordpress"],
            "url": ["*database=mariadb", "http://$database/$name"],
            "password": ["!rand 32 alnum"],
        }
    )
    database = contract.options["database"]
    assert database.optional
    assert list(database.choices) == ["mariadb", "sqlite"]
    assert database.can_select
    chosen = database.choices["mariadb"]
    assert chosen.selects_service
    assert chosen.requires == (Requirement(option="database_host"),)
    assert chosen.bindings == (BindingTemplate(command="create_user", words=("$name", "--all"), runs_in="database"),)
    assert not database.choices["sqlite"].selects_service
    url = contract.options["url"].free
    assert url is not None
    assert url.requires == (Requirement(option="database", value="mariadb"),)
    # $name is not required by the setting, so it is not a reference but text.
    assert url.default == Default(text="http://$database/$name", references=frozenset({"database"}))
    password = contract.options["password"].free
    assert password is not None
    assert password.default == Default(text="!rand 32 alnum", macro="rand", words=("32", "alnum"))
    assert contract.secrets == {"password"}
    assert contract.imports == {"database_host": Import(option="database", key="host")}


def test_no_label_is_the_empty_contract() -> None:
    assert image_contract({}).options == {}


@pytest.mark.parametrize("form", [{"secret_1=password": []}, {"secret_1": ["password"]}])
def test_secret_names_an_option_and_is_none_itself(form: dict[str, Any]) -> None:
    contract = contract_of({"password": [], **form})
    assert contract.secrets == {"password"}
    assert list(contract.options) == ["password"]


def test_a_volume_without_size_gets_one() -> None:
    contract = contract_of({"volume_2": ["/data"], "?volume_1": [], "volume_size_1": ["3Gi", "*volume_1"]})
    size = contract.options["volume_size_2"].free
    assert size is not None
    assert size.default == Default(text="1Gi")
    own = contract.options["volume_size_1"].free
    assert own is not None
    assert own.default == Default(text="3Gi")


def test_the_longest_option_owns_an_imported_name() -> None:
    contract = contract_of(
        {"db=&a": ["*db_ro_host", "*db_host"], "db_ro=&b": [], "?db_ro_x": []},
    )
    assert contract.imports["db_ro_host"] == Import(option="db_ro", key="host")
    assert contract.imports["db_host"] == Import(option="db", key="host")


BAD = [
    # text
    ("", "line 1 column 1"),
    ("[]", "must be a JSON object"),
    ("nul", "is not JSON"),
    ('{"a": [], "a": []}', '"a" stands twice'),
    ('{"a": NaN}', "NaN is not JSON"),
    ('{"a": ' + "[" * 30000 + "}", "nested too deeply"),
    ('{"a": ' + "9" * 5000 + "}", "is not JSON"),
    ('{"a": ["' + "x" * 70000 + '"]}', "the limit is 65536"),
    ("\ufeff{}", "is not JSON"),
    # keys
    ('{"": []}', '[""]: "" is not an option name'),
    ('{"A": []}', "is not an option name"),
    ('{"env_A\\nB": []}', "is not an option name"),
    ('{"env_A\\u0000B": []}', "U+0000 is not allowed"),
    ('{"a\\ud800": []}', "U+D800 is not allowed"),
    ('{"env_": []}', "env_ needs the name of a variable"),
    ('{"secret_env_1a": []}', "secret_env_ needs the name of a variable"),
    ('{"../a": []}', "is not an option name"),
    ('{"??a": []}', "is not an option name"),
    ('{"a=": []}', "a choice needs a value"),
    ('{"a=&": []}', '"" is not a service name'),
    ('{"a=&../b": []}', '"../b" is not a service name'),
    ('{"a=&b/c": []}', "is not a service name"),
    # combinations
    ('{"a=b": [], "a": []}', "either free or has choices"),
    ('{"a": [], "a=b": []}', "either free or has choices"),
    ('{"a": [], "?a": []}', "either free or has choices"),
    ('{"?a=b": [], "a=c": []}', "optional in one setting and not in another"),
    ('{"a=b": [], "a=&b": []}', 'has the choice "b" twice'),
    # tokens
    ('{"a": "b"}', "must be an array of tokens"),
    ('{"a": [["b"]]}', '["a"][0]: a token must be a string'),
    ('{"a": [1]}', "a token must be a string"),
    ('{"a": ["x", "y"]}', '["a"][1]: a second default; "x" stands before it'),
    ('{"a=b": ["x"]}', "a default does not belong to a choice"),
    ('{"a": ["*"]}', '"" is not an option name'),
    ('{"a": ["*B"]}', '"B" is not an option name'),
    ('{"a": ["*a"]}', "cannot require itself"),
    ('{"a": ["*b", "*b=1"], "b": []}', "b is required twice"),
    ('{"a": ["*b"]}', "b is not declared"),
    ('{"a": ["*b=3"], "b=1": [], "b=2": []}', '"3" is not a choice of b; choices: 1, 2'),
    ('{"a": ["*b_host"], "b=c": []}', "b_host is not declared"),
    ('{"a": ["&"]}', "is not a binding command"),
    ('{"a": ["& x"]}', "is not a binding command"),
    ('{"a": ["&../x"]}', '"../x" is not a binding command'),
    ('{"a": ["&x"]}', "must require exactly one option that selects a service"),
    ('{"a": ["&x", "*b", "*c"], "b=&d": [], "c=&e": []}', "found: b, c"),
    ('{"b=&d": ["&x $nope"]}', "$nope is not declared; declared: b"),
    ('{"b=&d": ["&x", "&x "]}', "the same binding stands before it"),
    ('{"a": ["!"]}', "is not a macro name"),
    ('{"a": ["! rand"]}', "is not a macro name"),
    ('{"a": ["!RAND"]}', "is not a macro name"),
    ('{"a": ["*b", "!if b=1 !rand 8 hex"], "b": []}', '["a"][1]: "!rand" would stay text: macros do not nest'),
    ('{"a": ["!if b=1 x !tls"], "b": []}', '"!tls" would stay text'),
    (json.dumps({"a": ["x" * 4097]}), "the limit is 4096"),
    (json.dumps({"a": ["!echo" + " x" * 100]}), "the limit is 64"),
    (json.dumps({"a": ["*b"] * 65}), "the limit is 64"),
    (json.dumps({f"a{n}": [] for n in range(257)}), "the limit is 256"),
    (json.dumps({"a" * 200: []}), "is not an option name"),
    # reserved names
    ('{"port_1": ["70000"]}', "ports 1 to 65535"),
    ('{"port_1": ["80/icmp"]}', "allowed: tcp, udp"),
    ('{"port_1=80x": []}', "is not port"),
    ('{"volume_1": ["data"]}', "is not a mount path"),
    ('{"volume_1": ["/a/../../etc"]}', "is not a mount path"),
    ('{"volume_1": ["/proc/sys"]}', "belongs to the node"),
    ('{"volume_1": ["/usr/lib"]}', "belongs to the node"),
    ('{"volume_1": ["/run/nanocloud/tls"]}', "belongs to the node"),
    ('{"volume_size_1": ["1Gi"]}', "there is no volume_1"),
    ('{"volume_encrypted_1": ["key"]}', "there is no volume_1"),
    ('{"volume_1": ["/data"], "volume_size_1": ["lots"]}', "is not a size"),
    ('{"volume_1": ["/data"], "volume_encrypted_1": ["../key"]}', "is not key[:fstype]"),
    ('{"secret_env_A": ["secret"]}', "is not [?]secret:key"),
    ('{"secret_env_A": ["../s:k"]}', "is not [?]secret:key"),
    ('{"runtime_args": ["[1]"]}', "JSON list of strings"),
    ('{"runtime_args": ["\'a"]}', "cannot be split into words"),
    ('{"secret_1": ["nope"]}', '"nope" is not declared'),
    ('{"secret_1=a": [], "secret_1=b": [], "a": [], "b": []}', "declared twice"),
    ('{"?secret_1=a": [], "a": []}', "only names an option that is secret"),
    ('{"secret_1": ["!rand 3 hex"]}', "must name an option"),
    ('{"a": ["*secret_1"], "secret_1=a": []}', "secret_1 is not declared"),
]


@pytest.mark.parametrize(("text", "said"), BAD, ids=[str(number) for number in range(len(BAD))])
def test_a_bad_label_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(LabelError) as caught:
        parse_options(text)
    message = str(caught.value)
    assert message.startswith("io.nanocloud.options")
    assert said in message
    assert len(message) < 1000
    assert message.isprintable()


def _refusal(text: str) -> str | None:
    """Why the label is refused; anything else that is raised fails the test."""
    try:
        contract = parse_options(text)
    except LabelError as error:
        return str(error)
    assert set(contract.options) == {setting.option for setting in contract.settings}
    return None


def _reads_or_refuses(text: str) -> None:
    message = _refusal(text)
    assert message is None or (message.startswith("io.nanocloud.options") and message.isprintable())


@given(st.text())
@example('{"a":')
def test_any_text_is_read_or_refused(text: str) -> None:
    _reads_or_refuses(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
NAMES = st.sampled_from(
    [
        *("a", "b", "b_host", "?", "=", "&", "é", "port_1", "runtime_args", "env_A"),
        *("volume_1", "volume_size_1", "volume_encrypted_1", "secret_1", "secret_env_A"),
    ]
)
DECORATED = st.lists(st.sampled_from(["?", "*", "&", "!", "=", "$", " ", "/", "80", "->", "\n", "rand"]) | NAMES).map(
    "".join
)


@given(st.dictionaries(st.text(), JSON) | JSON)
def test_any_json_is_read_or_refused(data: object) -> None:
    _reads_or_refuses(json.dumps(data))


@settings(max_examples=500)
@given(st.dictionaries(DECORATED, st.lists(DECORATED, max_size=4), max_size=6))
def test_anything_that_looks_like_a_label_is_read_or_refused(data: object) -> None:
    _reads_or_refuses(json.dumps(data))


FIXED: dict[str, list[str]] = {"db=&mariadb": [], "c=1": [], "c=2": []}
FREE = ("a", "?b", "env_A")
TOKENS = st.lists(st.sampled_from(["*c", "&create_user x", "!rand 8 hex", "*volume_1"]), unique=True).map(
    lambda more: ["*db", *more]
)
AT_ONCE = {
    "*B": "is not an option name",
    "&Create": "is not a binding command",
    "!Rand": "is not a macro name",
    "!if c=1 !rand": "macros do not nest",
    "a\0": "U+0000 is not allowed",
    "x" * 5000: "the limit is 4096",
}
"""Wrong whatever else the label says: setting and number of the token are told."""
LATER = {"*nope": "nope is not declared", "&make $nope": "$nope is not declared", "*d=3": "is not a choice of d"}
"""Wrong because of the rest of the label: the setting is told, and the token by what it says."""


@settings(max_examples=300)
@given(st.permutations([*FREE, "volume_1"]), st.sampled_from(FREE), TOKENS, st.sampled_from([*AT_ONCE, *LATER]))
def test_one_wrong_token_is_found_wherever_it_stands(keys: list[str], key: str, tokens: list[str], wrong: str) -> None:
    label = {**{name: [] for name in keys}, **FIXED, "d=1": [], "d=2": [], key: tokens}
    assert _refusal(json.dumps(label)) is None
    if wrong[0] not in "*&":
        tokens = [token for token in tokens if not token.startswith("!")]  # one default, and that the wrong one
    message = _refusal(json.dumps({**label, key: [*tokens, wrong]}))
    assert message is not None
    place = f'io.nanocloud.options["{key}"]' + (f"[{len(tokens)}]: " if wrong in AT_ONCE else ": ")
    assert message.startswith(place), message
    assert (AT_ONCE | LATER)[wrong] in message


def test_the_documented_example_is_read() -> None:
    assert list(contract_of(WORDPRESS).options["database_transport"].choices) == ["plain", "tls"]


def test_exports() -> None:
    exports = parse_exports(
        '{"options": ["host", "port"], "bindings": ["create_user"], "owned": {"create_user": [1, 2]}}'
    )
    assert exports.owned == {"create_user": (1, 2)}
    assert exports.options == {"host", "port"}
    assert exports.bindings == {"create_user"}
    assert parse_exports("{}").options == frozenset()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "must be a JSON object"),
        ('{"option": []}', "'option' is not known here; allowed: options, bindings, owned"),
        ('{"owned": []}', ".owned: must be an object"),
        ('{"owned": {"create_user": [1]}}', "is not among the exported bindings"),
        ('{"bindings": ["make"], "owned": {"make": []}}', ".owned.make: must be an array of argument positions"),
        ('{"bindings": ["make"], "owned": {"make": [0]}}', ".owned.make"),
        ('{"bindings": ["make"], "owned": {"make": [true]}}', ".owned.make"),
        ('{"bindings": ["make"], "owned": {"make": [65]}}', ".owned.make"),
        ('{"options": "host"}', "must be an array"),
        ('{"options": {"host": 1}}', "must be an array"),
        ('{"options": ["*"]}', ".options[0]: '*' is not an option name"),
        ('{"bindings": ["../sh"]}', ".bindings[0]"),
        ('{"bindings": [["a"]]}', ".bindings[0]"),
        ('{"options": [], "options": []}', "stands twice"),
    ],
)
def test_bad_exports_are_refused(text: str, said: str) -> None:
    with pytest.raises(LabelError, match=r"io\.nanocloud\.exports") as caught:
        parse_exports(text)
    assert said in str(caught.value)


@given(st.text() | JSON.map(json.dumps))
def test_any_exports_are_read_or_refused(text: str) -> None:
    with contextlib.suppress(LabelError):
        parse_exports(text)
