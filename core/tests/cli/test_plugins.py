"""``plugin list`` and ``plugin show`` on packages that are really there."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from nanocloud.cli.main import main
from nanocloud.testkit.plugins import PluginSite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PREAMBLE = """
from nanocloud import hookimpl
from nanocloud.testkit import FakeRuntime

NANOCLOUD_CONTRACTS = {"runtime": "1.0"}

class Named(FakeRuntime):
    def __init__(self, name):
        super().__init__()
        self._name = name

    @property
    def name(self):
        return self._name

@hookimpl
def nanocloud_runtime_providers(config):
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginSite]:
    """The only plugins that are allowed: ``one``, ``two``, ``three``."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "config.toml").touch()
    monkeypatch.setenv("NANOCLOUD_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("NANOCLOUD_ALLOW_PLUGINS", "one,two,three")
    monkeypatch.delenv("NANOCLOUD_RUNTIME", raising=False)
    site = PluginSite(tmp_path)
    yield site
    site.forget()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: str, code: int = 0) -> tuple[str, str]:
        assert main(["plugin", *words]) == code
        return tuple(capsys.readouterr())  # type: ignore[return-value]

    return run


def runtimes(*names: str) -> str:
    return f"{PREAMBLE}    return [Named(name) for name in {names!r}]\n"


def test_the_list_says_the_same_as_json_yaml_and_table(site: PluginSite, run: Any) -> None:
    site.install("acme-one", "one", runtimes("fast"), version="4.5")
    site.install("acme-two", "two", runtimes("small").replace("1.0", "2.0"))
    site.install("acme-four", "four", "raise SystemExit")
    rows = {row["name"]: row for row in json.loads(run("list", "-o", "json")[0])}
    assert rows["one"] == {
        "name": "one",
        "distribution": "acme-one",
        "version": "4.5",
        "state": "active",
        "reason": "",
        "contracts": {"runtime": "1.0"},
        "hooks": ["nanocloud_runtime_providers"],
    }
    assert (rows["two"]["state"], rows["two"]["hooks"]) == ("incompatible", [])
    assert rows["two"]["reason"] == "built for runtime contract 2.0; this node speaks 1.0"
    assert (rows["four"]["state"], rows["four"]["reason"]) == ("disabled", "not in node.allow_plugins")
    assert {row["name"]: row for row in yaml.safe_load(run("list", "-o", "yaml")[0])} == rows
    lines = {line.split()[0]: line.split() for line in run("list")[0].splitlines()}
    assert lines["one"] == ["one", "acme-one", "4.5", "active", "runtime", "1.0", "runtime_providers"]
    assert " ".join(lines["two"][4:]) == "runtime 2.0 built for runtime contract 2.0; this node speaks 1.0"
    assert " ".join(lines["four"][3:]) == "disabled - not in node.allow_plugins"


def test_names_that_mean_no_plugin_are_noted_beside_the_list(site: PluginSite, run: Any) -> None:
    out, err = run("list", "-o", "json")
    assert json.loads(out)[0]["name"] == "core"
    assert "note: node.allow_plugins names 'three', which is not installed\n" in err


def test_a_plugin_is_shown_with_what_it_offers_and_what_of_that_is_used(
    site: PluginSite, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = "Summary: Fast containers\nProject-URL: Homepage, https://acme.example/fast"
    module = site.install("acme-one", "one", runtimes("fast", "faster"), metadata=metadata)
    monkeypatch.setenv("NANOCLOUD_RUNTIME", "faster")
    shown = json.loads(run("show", "one", "-o", "json")[0])
    assert (
        shown.items()
        >= {
            "name": "one",
            "entryPoint": module,
            "summary": "Fast containers",
            "homepage": "https://acme.example/fast",
            "advice": "",
        }.items()
    )
    assert shown["providers"] == [
        {"contract": "runtime", "name": "fast", "chosen": False},
        {"contract": "runtime", "name": "faster", "chosen": True},
    ]
    assert yaml.safe_load(run("show", "one", "-o", "yaml")[0]) == shown
    text = run("show", "one")[0]
    assert "Homepage:     https://acme.example/fast\n" in text
    assert text.splitlines()[-2:] == ["runtime    fast     no", "runtime    faster   yes"]


def test_of_several_runtimes_none_is_chosen_and_the_note_says_why(site: PluginSite, run: Any) -> None:
    site.install("acme-one", "one", runtimes("fast"))
    site.install("acme-two", "two", runtimes("small"))
    out, err = run("show", "two", "-o", "json")
    assert json.loads(out)["providers"] == [{"contract": "runtime", "name": "small", "chosen": False}]
    assert "note: several runtime providers are installed: fast (acme-one), small (acme-two); choose one" in err


def test_two_providers_of_one_name_are_noted_and_the_rest_is_shown(site: PluginSite, run: Any) -> None:
    site.install("acme-one", "one", runtimes("fast"))
    site.install("acme-two", "two", runtimes("fast"))
    out, err = run("show", "core", "-o", "json")
    assert {"contract": "storage", "name": "sqlite", "chosen": True} in json.loads(out)["providers"]
    assert "note: nanocloud_runtime_providers: 'fast' is offered by acme-one and acme-two; disable one" in err


@pytest.mark.parametrize(
    ("source", "variables", "advice"),
    [
        ("1 / 0", {}, f"see the whole error with: {sys.executable} -c 'import plugin_of_the_test_"),
        (f"{PREAMBLE}    1 / 0", {}, "check its table in the configuration, or tell its authors: https://acme.example"),
        (PREAMBLE.replace("@hookimpl", "") + "    return []", {}, "tell its authors: https://acme.example"),
        (
            "NANOCLOUD_CONTRACTS = {'runtime': '2.0'}",
            {},
            "install a release of acme-one for the contracts of this node, or update nanocloud",
        ),
        (
            "",
            {"NANOCLOUD_DISABLE_PLUGINS": "one"},
            "take it out of node.disable_plugins (or NANOCLOUD_DISABLE_PLUGINS) and start the server again",
        ),
        (
            "",
            {"NANOCLOUD_ALLOW_PLUGINS": "two"},
            "name it in node.allow_plugins (or NANOCLOUD_ALLOW_PLUGINS) and start the server again",
        ),
    ],
)
def test_what_is_not_in_use_says_what_to_do(
    site: PluginSite,
    run: Any,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    variables: dict[str, str],
    advice: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    site.install("acme-one", "one", source, metadata="Home-page: https://acme.example")
    assert f"What to do:   {advice}" in run("show", "one")[0]


def test_a_name_of_two_distributions_says_to_uninstall_one(site: PluginSite, run: Any) -> None:
    site.install("acme-one", "one", "")
    site.install("acme-two", "one", "")
    assert "What to do:   uninstall all but one of the distributions that offer" in run("show", "one")[0]


def test_what_takes_the_name_of_core_is_noted_beside_it(site: PluginSite, run: Any) -> None:
    site.install("acme-core", "core", "")
    out, err = run("show", "core", "-o", "json")
    assert json.loads(out)["distribution"] == "nanocloud"
    assert "note: acme-core offers this name too: the name 'core' is taken by nanocloud\n" in err


def test_an_unknown_name_is_an_error_that_lists_the_known_ones(site: PluginSite, run: Any) -> None:
    site.install("acme-one", "one", "")
    out, err = run("show", "acme", code=1)
    assert out == ""
    assert "error: no plugin 'acme' is installed\n  installed: core, " in err
    assert "one" in err.splitlines()[-1].replace(",", "").split()


def test_what_could_steer_a_terminal_reaches_none(
    site: PluginSite, run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NANOCLOUD_ALLOW_PLUGINS", "one,o\x1b[2Jne")
    site.install("acme-\x1b[2J", "o\x1b[2Jne", runtimes("fast"), metadata="Summary: \x1b[2J")
    site.install("acme-one", "one", f"{PREAMBLE}    raise ValueError('\\x1b[2J \\ud800')")
    entries = next(tmp_path.glob("acme_\x1b*")) / "entry_points.txt"
    entries.write_text(entries.read_text() + f"core = {site.modules[0]}\n")
    for words, code in (("list",), 0), (("show", "one"), 0), (("show", "core"), 0), (("show", "\x1b[2J"), 1):
        shown = "".join(run(*words, code=code))
        assert "\x1b" not in shown
        shown.encode()


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("words", [("list",), ("show", "core")])
def test_an_unknown_output_is_refused_with_those_that_there_are(run: Any, words: tuple[str, ...]) -> None:
    _, err = run(*words, "-o", "xml", code=2)
    assert "--output is 'xml'; allowed: table, json, yaml" in err
