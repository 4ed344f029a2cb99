from __future__ import annotations

import pytest
import trio
from hypothesis import assume, given
from hypothesis import strategies as st

from nanocloud.errors import InvalidError, LabelError, UnavailableError
from nanocloud.planning import Resolution, select_services
from nanocloud.planning.profile import ResolvedOption
from nanocloud.testkit.planning import (
    MARIADB,
    WORDPRESS,
    FakeMacros,
    Settings,
    contract_of,
    profile_of,
    resolve_label,
    target,
    values,
)


async def refusal(settings: Settings, given: dict[str, str] | None = None, **more: object) -> InvalidError:
    with pytest.raises(InvalidError) as caught:
        await resolve_label(settings, given, **more)  # type: ignore[arg-type]
    return caught.value


async def test_wordpress_on_mariadb_remembers_where_every_value_came_from() -> None:
    resolution = await resolve_label(WORDPRESS, {"database_name": "blog"}, targets=[await target()])
    assert {name: (option.value, option.source, option.secret) for name, option in resolution.options.items()} == {
        "database": ("mariadb", "choice default", False),
        "database_host": ("mariadb.default.svc", "import of mariadb", False),
        "database_name": ("blog", "given", False),
        "database_password": ("random1", "macro !rand", True),
        "database_user": ("wordpress", "default", False),
        "env_DB_HOST": ("mariadb.default.svc", "default", False),
        "env_DB_NAME": ("blog", "default", False),
        "env_DB_PASSWORD": ("random1", "default", True),
        "port_1": ("8080->80", "default", False),
        "volume_1": ("/var/www/html", "default", False),
        "volume_size_1": ("1Gi", "default", False),
    }
    assert resolution.services == {"database": "mariadb"}
    assert "random1" not in repr(resolution)


async def test_what_was_decided_stays_decided() -> None:
    targets = [await target()]
    first = await resolve_label(WORDPRESS, {"database_name": "blog"}, targets=targets)
    macros = FakeMacros()
    again = await resolve_label(WORDPRESS, {"database_name": "blog"}, previous=first, targets=targets, macros=macros)
    assert again == first
    assert macros.calls == []
    silent = await resolve_label(WORDPRESS, previous=first, targets=targets, macros=macros)
    assert values(silent) == values(first)
    assert silent.options["database_name"].source == "profile"
    assert await resolve_label(WORDPRESS, previous=silent, targets=targets, macros=macros) == silent


async def test_a_new_default_in_the_image_does_not_change_what_was_decided() -> None:
    first = await resolve_label({"a": ["1"]})
    assert values(await resolve_label({"a": ["2"], "b": ["3"]}, previous=first)) == {"a": "1", "b": "3"}


async def test_a_changed_option_changes_what_is_made_from_it_and_nothing_else() -> None:
    settings = {"name": ["a"], "url": ["*name", "http://$name"], "key": ["!rand 8 hex", "*name"]}
    first = await resolve_label(settings)
    second = await resolve_label(settings, {"name": "b"}, previous=first)
    assert values(second) == {"name": "b", "url": "http://b", "key": first.options["key"].value}


async def test_a_given_value_is_never_expanded() -> None:
    macros = FakeMacros()
    given = {"a": "!rand 8 hex", "b": "$a", "env_X": "*a"}
    resolution = await resolve_label(
        {"a": [], "b": ["*a", "x"], "env_X": [], "env_Y": ["*b", "<$b>"]}, given, macros=macros
    )
    # What came in with $b is not looked at again either.
    assert values(resolution) == given | {"env_Y": "<$a>"}
    assert macros.calls == []


async def test_only_required_options_are_replaced_in_a_default() -> None:
    settings = {"a": ["1"], "b": ["*a", "$a $b $HOME $$a $ab ${a} $"]}
    assert values(await resolve_label(settings))["b"] == "1 $b $HOME $1 $ab ${a} $"


async def test_macro_words_stay_words() -> None:
    macros = FakeMacros()
    resolution = await resolve_label({"a": [], "b": ["*a", "!echo $a x$a"]}, {"a": "1 2"}, macros=macros)
    assert resolution.options["b"].value == "1 2 x1 2"
    assert resolution.options["b"].source == "macro !echo"
    assert macros.calls[0][1] == ("1 2", "x1 2")
    assert macros.calls[0][2].option == "b"


async def test_if_waits_for_the_option_it_compares() -> None:
    settings = {"b": ["!if a=2 yes no"], "a": ["!echo 2"]}
    assert values(await resolve_label(settings)) == {"a": "2", "b": "yes"}


async def test_an_optional_port_that_a_macro_leaves_empty_falls_away() -> None:
    settings = {"tls=on": [], "tls=off": [], "?port_1": ["!if tls=on 443"], "?env_A": ["!if tls=on 443"]}
    assert values(await resolve_label(settings)) == {"tls": "on", "port_1": "443", "env_A": "443"}
    assert values(await resolve_label(settings, {"tls": "off"})) == {"tls": "off", "env_A": ""}


async def test_secrets_spread_to_what_is_made_from_them() -> None:
    settings = {
        "token": ["t0ken"],
        "secret_1=token": [],
        "password": ["!rand 8 hex"],
        "env_URL": ["*password", "https://x:$password@h"],
        "env_TOKEN": ["*token", "!echo $token"],
        "env_PLAIN": ["*token", "plain"],
    }
    resolution = await resolve_label(settings, {"password": "hunter2"})
    secret = {name for name, option in resolution.options.items() if option.secret}
    assert secret == {"token", "password", "env_URL", "env_TOKEN"}
    assert resolution.options["password"].source == "given"


@pytest.mark.parametrize("name", ["runtime_args", "port_1", "volume_1", "secret_env_A"])
async def test_a_secret_does_not_get_where_it_can_be_seen(name: str) -> None:
    error = await refusal({"password": ["!rand 8 hex"], name: ["*password", "$password"]})
    assert error.causes[0].field == f"spec.options.{name}"
    assert "random1" not in str(error)


# Requirements


async def test_settings_of_a_service_that_is_not_selected_fall_away() -> None:
    settings = {
        "?database=&mariadb": ["*database_host", "&create_user $user"],
        "user": ["u"],
        "?env_HOST": ["*database_host", "$database_host"],
        "?env_MODE": ["*database", "db"],
    }
    assert values(await resolve_label(settings)) == {"user": "u"}
    with_database = await resolve_label(settings, {"database": "mariadb"}, targets=[await target()])
    assert with_database.options["env_HOST"].value == "mariadb.default.svc"
    # Given empty it is deselected again; without a word the profile holds.
    assert "database" in (await resolve_label(settings, previous=with_database, targets=[await target()])).options
    assert values(await resolve_label(settings, {"database": ""}, previous=with_database)) == {"user": "u"}


@pytest.mark.parametrize(
    ("settings", "given", "field", "said"),
    [
        ({"?a": [], "b": ["*a", "1"]}, {}, "b", "requires a, which has no value"),
        ({"?a": [], "?b": ["*a"]}, {"b": "1"}, "b", "requires a, which has no value"),
        ({"a=1": [], "a=2": [], "b": ["*a=2", "x"]}, {}, "b", "requires a=2; a is '1'"),
        ({"a=1": [], "a=2": [], "?b=x": ["*a=2"]}, {"b": "x"}, "b", "requires a=2; a is '1'"),
        ({"a": []}, {}, "a", "is required and has no default"),
        ({"a=1": [], "a=2": []}, {"a": "3"}, "a", "'3' is not a choice; choices: 1, 2"),
        ({"a=1": [], "a=2": []}, {"a": ""}, "a", "'' is not a choice; choices: 1, 2"),
        ({"database": []}, {"datbase": "x"}, "datbase", "did you mean database?; options: database"),
        ({}, {"a": "1"}, "a", "options: none"),
        ({"a": [], "secret_1=a": []}, {"a": "1", "secret_1": "b"}, "secret_1", "is not an option"),
        ({"port_1": ["80"]}, {"port_1": "http"}, "port_1", "'http' is not port[/proto]"),
        ({"volume_1": ["/data"]}, {"volume_size_2": "1Gi"}, "volume_size_2", "did you mean volume_size_1"),
        ({"volume_1": ["/data"]}, {"volume_size_1": "big"}, "volume_size_1", "is not a size"),
        ({"env_A": []}, {"env_A": "a\0b"}, "env_A", "NUL"),
        ({"a": ["!nope x"]}, {}, "a", "!nope x is not a known macro"),
        ({"a": ["*b", "$b"], "b": ["*a", "$a"]}, {}, "a", "a -> b -> a"),
        ({"a": ["!if a=1 2"]}, {}, "a", "a -> a"),
        ({"x": ["*a", "1"], "a": ["*b", "1"], "b": ["!if a=1 2"]}, {}, "a", "a -> b -> a"),
        ({"s=&wordpress": []}, {}, "s", "cannot select itself"),
    ],
)
async def test_what_cannot_be_is_refused_by_field(
    settings: Settings, given: dict[str, str], field: str, said: str
) -> None:
    error = await refusal(settings, given)
    assert [cause.field for cause in error.causes] == [f"spec.options.{field}"]
    assert said in error.causes[0].message
    assert field in str(error)
    assert said in str(error)


async def test_a_cycle_is_broken_by_a_given_value() -> None:
    settings = {"a": ["*b", "<$b>"], "b": ["*a", "[$a]"]}
    assert values(await resolve_label(settings, {"b": "1"})) == {"a": "<1>", "b": "1"}


async def test_a_value_given_earlier_still_breaks_the_cycle() -> None:
    for settings in ({"a": ["*b", "<$b>"], "b": ["*a", "[$a]"]}, {"b": ["!if b=1 x y"], "a": ["1"]}):
        first = await resolve_label(settings, {"b": "1"})
        assert values(await resolve_label(settings, previous=first)) == values(first)


async def test_all_bad_options_are_reported_at_once() -> None:
    error = await refusal({"a=1": [], "port_1": [], "c": []}, {"a": "2", "port_1": "x", "nope": "y"})
    assert [cause.field for cause in error.causes] == ["spec.options.a", "spec.options.nope", "spec.options.port_1"]
    error = await refusal({"c": [], "d": []})
    assert [cause.field for cause in error.causes] == ["spec.options.c", "spec.options.d"]


async def test_what_is_missing_because_of_a_bad_option_is_not_reported_besides() -> None:
    settings = {"a": [], "b": ["*a", "<$a>"], "c": ["*b", "1"], "d=1": ["*a"], "e": ["*f", "1"], "?f": []}
    error = await refusal(settings)
    assert [(cause.field, cause.reason) for cause in error.causes] == [
        ("spec.options.a", "FieldValueRequired"),
        ("spec.options.e", "FieldValueInvalid"),
    ]


async def test_no_message_holds_a_secret() -> None:
    settings = {"password": ["!rand 8 hex"], "a": ["*password", "!nope $password"], "pin=1": [], "secret_1=pin": []}
    assert "hunter2" not in str(await refusal(settings, {"password": "hunter2"}))
    assert "hunter2" not in str(await refusal(settings, {"pin": "hunter2"}))


async def test_a_default_cannot_grow_without_bound() -> None:
    bomb = {"a": ["x" * 4000]} | {
        name: [f"*{before}", f"${before}" * 1000] for before, name in zip("abcd", "bcde", strict=True)
    }
    error = await refusal(bomb)
    assert error.causes[0].message == "is longer than 32768 characters when its options are put in"


async def test_many_large_values_are_refused_together() -> None:
    error = await refusal({"a": ["x" * 4000]} | {f"b{n}": ["*a", "$a" * 8] for n in range(40)})
    assert error.causes[0].field == "spec.options.b0"
    assert "the limit is 1048576" in error.causes[0].message


# Services


def test_select_services_needs_no_target() -> None:
    contract = contract_of(WORDPRESS)
    assert select_services(contract, {}) == {"database": "mariadb"}
    with pytest.raises(InvalidError, match="choices: mariadb"):
        select_services(contract, {"database": "oracle"})


async def test_a_selected_service_must_be_there_when_it_is_needed() -> None:
    with pytest.raises(UnavailableError, match="mariadb is not installed in default"):
        await resolve_label(WORDPRESS)
    assert (await resolve_label({"database=&mariadb": []})).services == {"database": "mariadb"}


async def test_what_the_service_does_not_export_is_refused() -> None:
    error = await refusal({"database=&mariadb": ["*database_root_password"]}, targets=[await target()])
    assert error.causes[0].field == "spec.options.database_root_password"
    assert "mariadb, selected by database, does not export root_password; it exports host, port" in str(error)
    error = await refusal(WORDPRESS, targets=[await target(exports={})])
    assert "does not export host; it exports nothing" in str(error)


async def test_an_exported_option_without_value_is_refused() -> None:
    service = await target(exports={"options": ["socket"]})
    assert "has no value for socket" in str(await refusal({"db=&mariadb": ["*db_socket"]}, targets=[service]))


async def test_an_exported_secret_stays_secret() -> None:
    service = await target(exports={"options": ["root_password"]})
    settings = {"db=&mariadb": ["*db_root_password"], "env_P": ["*db_root_password", "$db_root_password"]}
    resolution = await resolve_label(settings, targets=[service])
    assert resolution.options["db_root_password"].secret
    assert resolution.options["env_P"].secret


async def test_a_service_of_another_namespace_is_refused() -> None:
    error = await refusal(WORDPRESS, targets=[await target(namespace="other")])
    assert "mariadb is in namespace other" in str(error)


async def test_an_import_follows_the_service() -> None:
    settings = {"db=&mariadb": ["*db_port"], "db=&postgres": ["*db_port"], "env_URL": ["*db_port", "x:$db_port"]}
    both = [await target(), await target("postgres", {"port": ["5432"]}, {"options": ["port"]})]
    first = await resolve_label(settings, targets=both)
    assert values(first) == {"db": "mariadb", "db_port": "3306", "env_URL": "x:3306"}
    second = await resolve_label(settings, {"db": "postgres"}, previous=first, targets=both)
    assert values(second) == {"db": "postgres", "db_port": "5432", "env_URL": "x:5432"}


async def test_a_value_that_conflicts_with_the_services_profile_is_refused() -> None:
    settings = {"db=&mariadb": ["*db_port"], "db=none": [], "?x": ["*db_port"]}
    assert "'1' conflicts with the profile of mariadb, which has '3306'" in str(
        await refusal(settings, {"db_port": "1"}, targets=[await target()])
    )
    assert values(await resolve_label(settings, {"db_port": "3306"}, targets=[await target()]))["db_port"] == "3306"
    error = await refusal(settings, {"db": "none", "db_port": "1"})
    assert "comes from the service that db selects, and it selects none" in str(error)


async def test_a_choice_that_conflicts_with_the_services_profile_is_refused() -> None:
    service = await target(settings={**MARIADB, "transport": ["tls"]}, exports={"options": ["host", "transport"]})
    settings = {"db=&mariadb": ["*db_transport"], "db_transport=plain": [], "db_transport=tls": []}
    assert "'plain' conflicts with the profile of mariadb" in str(await refusal(settings, targets=[service]))
    assert (await resolve_label(settings, {"db_transport": "tls"}, targets=[service])).services


async def test_a_declared_option_is_imported_before_its_default() -> None:
    settings = {"db=&mariadb": ["*db_port", "*db_socket"], "db_port": ["1"], "db_socket": ["/s"]}
    resolution = await resolve_label(settings, targets=[await target()])
    assert resolution.options["db_port"] == ResolvedOption(value="3306", source="import of mariadb")
    assert resolution.options["db_socket"] == ResolvedOption(value="/s", source="default")


async def test_a_kept_choice_that_the_image_no_longer_offers_is_an_error() -> None:
    first = await resolve_label({"a=1": [], "a=2": []}, {"a": "2"})
    error = await refusal({"a=1": [], "a=3": []}, previous=first)
    assert "is '2' in the profile and no longer a choice; choices: 1, 3" in str(error)
    assert select_services(contract_of({"a=1": []}), {"a": "1"}, profile_of(first)) == {}


# Properties

NAMES = ("a", "b", "c", "d")
WORDS = [f"*{n}" for n in NAMES] + ["*a=1", "*b=2", "*a_port", "*b_port"]
DEFAULTS = ["1", "2", "!rand 8 hex", "!if a=1 x y", "!echo $a $b", "$a-$b", "x$c", "$a_port"]
FREE = st.tuples(st.lists(st.sampled_from(WORDS), max_size=2, unique=True), st.sampled_from(DEFAULTS))
CHOICES = st.lists(st.sampled_from(["1", "2", "&mariadb"]), min_size=1, max_size=2, unique=True)


@st.composite
def labels(draw: st.DrawFn) -> dict[str, list[str]]:
    """Mostly labels that can be read and resolved, else the properties would hold for nothing."""
    found: dict[str, list[str]] = {}
    for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True)):
        key = draw(st.sampled_from(["", "?"])) + name
        shape = draw(FREE | CHOICES)
        if isinstance(shape, list):
            found |= {f"{key}={choice}": [] for choice in shape}
        else:
            found[key] = [*shape[0], shape[1]]
    return found


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, list[str]], dict[str, str]]:
    settings = draw(labels())
    declared = sorted({key.strip("?").partition("=")[0] for key in settings})
    values = st.sampled_from(["1", "2", "$a", "!rand 8 hex"])
    return settings, draw(st.dictionaries(st.sampled_from(declared), values, max_size=2))


def solved(settings: Settings, given: dict[str, str], previous: Resolution | None = None) -> Resolution | str:
    async def run() -> Resolution:
        return await resolve_label(settings, given, previous=previous, targets=[await target()])

    try:
        return trio.run(run)
    except LabelError:
        assume(False)
        raise
    except InvalidError as error:
        return str(error)


@given(cases())
def test_resolving_is_deterministic(case: tuple[dict[str, list[str]], dict[str, str]]) -> None:
    settings, given = case
    assert solved(settings, given) == solved(settings, dict(reversed(given.items())))


@given(cases())
def test_resolving_a_resolved_profile_changes_nothing(
    case: tuple[dict[str, list[str]], dict[str, str]],
) -> None:
    settings, given = case
    first = solved(settings, given)
    assume(isinstance(first, Resolution))
    assert isinstance(first, Resolution)
    assert solved(settings, given, first) == first
    silent = solved(settings, {}, first)
    assert isinstance(silent, Resolution)
    assert values(silent) == values(first)
    assert solved(settings, {}, silent) == silent


@given(cases())
def test_given_values_come_out_as_they_went_in(case: tuple[dict[str, list[str]], dict[str, str]]) -> None:
    settings, given = case
    resolution = solved(settings, given)
    assume(isinstance(resolution, Resolution))
    assert isinstance(resolution, Resolution)
    assert {name: resolution.options[name].value for name in given} == given
    assert all(resolution.options[name].source == "given" for name in given)
