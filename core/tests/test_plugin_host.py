"""Plugins as they are installed: packages with metadata in a folder, good ones and every kind of bad one."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from textwrap import dedent, indent
from typing import TYPE_CHECKING, Any

import pytest

from nanocloud import builtin
from nanocloud.config import NodeConfig
from nanocloud.errors import PluginError
from nanocloud.plugins import ROLES, PluginConflictError, PluginHost, PluginState
from nanocloud.providers.network import NetworkProvider
from nanocloud.providers.runtime import RuntimeProvider
from nanocloud.providers.storage import StorageProvider
from nanocloud.storage import SqliteStorage
from nanocloud.testkit.plugins import PluginSite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nanocloud.plugins import PluginInfo

CONFIG = NodeConfig()
RUNTIME = """\
    @hookimpl
    def nanocloud_runtime_providers(config):
        return [Runtime({name!r})]
"""
PREAMBLE = """\
from nanocloud import hookimpl
from nanocloud.testkit import FakeRuntime

NANOCLOUD_CONTRACTS = {"storage": "1.0", "runtime": "1.0"}


class Runtime(FakeRuntime):
    def __init__(self, name):
        super().__init__()
        self._name = name

    @property
    def name(self):
        return self._name


"""


class Site(PluginSite):
    def install(self, distribution: str, entry: str, source: str, **options: str) -> str:
        return super().install(distribution, entry, PREAMBLE + dedent(source), **options)

    def host(self, *disabled: str, core: bool = False, **options: Any) -> PluginHost:
        return super().host(disabled=disabled, builtin=builtin if core else None, **options)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.syspath_prepend(tmp_path)
    site = Site(tmp_path)
    yield site
    site.forget()


def only(host: PluginHost) -> PluginInfo:
    (info,) = host.plugins
    return info


def runtime(name: str) -> str:
    return RUNTIME.format(name=name)


def select(host: PluginHost, config: NodeConfig = CONFIG) -> RuntimeProvider:
    return host.select("runtime", RuntimeProvider, config)


def refusal(host: PluginHost, config: NodeConfig = CONFIG) -> tuple[str, str]:
    with pytest.raises(PluginError) as caught:
        select(host, config)
    return str(caught.value), caught.value.hint


# ---- finding ---------------------------------------------------------------------------------------------------------


def test_an_installed_plugin_is_found_on_the_path_without_being_named_anywhere(site: Site) -> None:
    site.install("acme-fast", "acme-fast", runtime("fast"))
    host = PluginHost()
    (info,) = [info for info in host.plugins if info.name == "acme-fast"]
    assert (info.distribution, info.version) == ("acme-fast", "1.2.3")
    assert info.contracts == {"storage": "1.0", "runtime": "1.0"}
    assert (info.state, info.hooks, info.reason) == (PluginState.ACTIVE, ("nanocloud_runtime_providers",), "")
    assert "fast" in host.named("nanocloud_runtime_providers", RuntimeProvider, config=CONFIG)


def test_core_offers_what_it_has_as_a_plugin_does(site: Site) -> None:
    info = only(site.host(core=True))
    assert (info.name, info.distribution, info.state) == ("core", "nanocloud", PluginState.ACTIVE)
    assert "nanocloud_storage_providers" in info.hooks


def test_one_distribution_twice_on_the_path_counts_once(site: Site) -> None:
    site.install("acme", "acme", runtime("fast"))
    (entry,) = importlib.metadata.distribution("acme").entry_points
    assert only(PluginHost(installed=[entry, entry])).state is PluginState.ACTIVE


def test_two_distributions_of_one_plugin_name_are_both_refused(site: Site) -> None:
    site.install("acme-one", "shared", runtime("one"))
    site.install("acme-two", "shared", runtime("two"))
    info = only(site.host())
    assert info.state is PluginState.DUPLICATE
    assert "acme-one" in info.distribution
    assert "acme-two" in info.distribution
    assert "uninstall all but one" in info.reason
    assert refusal(site.host())[0].startswith("no runtime provider is installed [shared (acme-")


@pytest.mark.parametrize("disabled", [(), ("core",)])
def test_no_distribution_takes_the_place_of_core(site: Site, disabled: tuple[str, ...]) -> None:
    site.install("acme", "core", runtime("fast"))
    host = site.host(*disabled, core=True)
    core, other = host.plugins
    assert (core.distribution, core.state) == ("nanocloud", PluginState.ACTIVE)
    assert (other.distribution, other.state) == ("acme", PluginState.DUPLICATE)
    assert other.reason == "the name 'core' is taken by nanocloud"
    assert host.select("storage", StorageProvider, CONFIG).name == "sqlite"


def test_a_disabled_plugin_is_not_even_imported(site: Site) -> None:
    module = site.install("acme", "acme", "raise SystemExit('imported')")
    info = only(site.host("acme"))
    assert (info.state, info.reason) == (PluginState.DISABLED, "named in node.disable_plugins")
    assert module not in sys.modules


def test_only_allowed_plugins_and_core_are_imported(site: Site) -> None:
    module = site.install("acme-one", "one", "raise SystemExit('imported')")
    site.install("acme-two", "two", runtime("small"))
    host = site.host(core=True, allowed=["two"])
    core, one, two = host.plugins
    assert (one.name, one.state, one.reason) == ("one", PluginState.DISABLED, "not in node.allow_plugins")
    assert module not in sys.modules
    assert (core.state, two.state) == (PluginState.ACTIVE, PluginState.ACTIVE)
    assert select(host).name == "small"
    assert host.notes == ()


def test_an_empty_allow_list_leaves_core(site: Site) -> None:
    site.install("acme-one", "one", runtime("fast"))
    host = site.host(core=True, allowed=())
    assert [info.state for info in host.plugins] == [PluginState.ACTIVE, PluginState.DISABLED]
    message, _ = refusal(host)
    assert message == "no runtime provider is installed [one (acme-one) is disabled: not in node.allow_plugins]"


def test_what_is_disabled_stays_so_where_it_is_allowed(site: Site) -> None:
    site.install("acme-one", "one", runtime("fast"))
    assert only(site.host("one", allowed=["one"])).reason == "named in node.disable_plugins"


def test_names_that_mean_no_plugin_are_told_and_harm_nothing(site: Site) -> None:
    site.install("acme-one", "one", runtime("fast"))
    host = site.host("gone", "core", core=True, allowed=["one", "core", "acme-one"])
    assert host.notes == (
        "node.allow_plugins names 'acme-one', a distribution; its plugin is 'one'",
        "node.disable_plugins names 'gone', which is not installed",
        "node.disable_plugins names 'core', which is always loaded",
    )
    assert [info.state for info in host.plugins] == [PluginState.ACTIVE, PluginState.ACTIVE]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Run_Fast", "which is not installed; 'run-fast' is"),
        (" run-fast ", "which is not installed; 'run-fast' is"),
        ("Acme_One", "a distribution; its plugin is 'run-fast'"),
    ],
)
def test_another_spelling_of_a_name_is_told_with_the_right_one(site: Site, name: str, told: str) -> None:
    site.install("acme-one", "run-fast", runtime("fast"))
    host = site.host(name)
    assert host.notes == (f"node.disable_plugins names {name!r}, {told}",)
    assert only(host).state is PluginState.ACTIVE


def test_metadata_that_says_nothing_takes_nothing_down(site: Site) -> None:
    site.install("acme", "acme", runtime("fast"))
    (site.folder / "acme-1.2.3.dist-info" / "METADATA").write_text("")
    info = only(site.host())
    assert (info.distribution, info.version, info.state) == ("unknown", "unknown", PluginState.ACTIVE)


@pytest.mark.parametrize(
    ("file", "content"),
    [("METADATA", None), ("METADATA", b"Name: \xff\xfe"), ("entry_points.txt", b"[nanocloud]\nlost\n")],
)
def test_metadata_that_cannot_be_read_takes_nothing_down(site: Site, file: str, content: bytes | None) -> None:
    site.install("acme-good", "good", runtime("fast"))
    site.install("acme", "acme", runtime("small"))
    broken = site.folder / "acme-1.2.3.dist-info" / file
    if content is None:
        broken.unlink()
    else:
        broken.write_bytes(content)
    host = PluginHost(allowed=["good", "acme"])
    infos = {info.name: info for info in host.plugins if info.name in ("good", "acme")}
    assert infos["good"].state is PluginState.ACTIVE
    if file == "METADATA":
        assert (infos["acme"].distribution, infos["acme"].state) == ("unknown", PluginState.ACTIVE)
    else:
        assert "acme" not in infos
        assert host.notes[0].startswith(f"the entry points in {broken.parent} cannot be read: TypeError: ")


# ---- plugins that cannot be used -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "state", "reason"),
    [
        ("import no_such_module", PluginState.BROKEN, "import raised ModuleNotFoundError: No module named"),
        ("raise SystemExit(3)", PluginState.BROKEN, "import raised SystemExit: 3"),
        ("1 / 0", PluginState.BROKEN, "import raised ZeroDivisionError: division by zero"),
        (
            "NANOCLOUD_CONTRACTS = {'runtime': '2.0'}",
            PluginState.INCOMPATIBLE,
            "built for runtime contract 2.0; this node speaks 1.0",
        ),
        ("del NANOCLOUD_CONTRACTS", PluginState.INCOMPATIBLE, "states no NANOCLOUD_CONTRACTS"),
        (
            "@hookimpl\ndef nanocloud_volume_providers(config): return []",
            PluginState.INCOMPATIBLE,
            "implements nanocloud_volume_providers but states no volume contract; this node speaks 1.0",
        ),
        (
            "@hookimpl\ndef nanocloud_teleport_providers(config): return []",
            PluginState.BROKEN,
            "implements unknown hooks: nanocloud_teleport_providers",
        ),
        (
            "def nanocloud_runtime_providers(config): return []",
            PluginState.BROKEN,
            "nanocloud_runtime_providers is not marked with @hookimpl",
        ),
        (
            "@hookimpl\ndef nanocloud_runtime_providers(config, wishes): return []",
            PluginState.BROKEN,
            "nanocloud_runtime_providers takes wishes; there is config to take",
        ),
        (
            "@hookimpl\ndef nanocloud_commands(config): return []",
            PluginState.BROKEN,
            "nanocloud_commands takes config; there is nothing to take",
        ),
        (
            "@hookimpl\ndef nanocloud_runtime_providers(config=None): return []",
            PluginState.BROKEN,
            "nanocloud_runtime_providers has a default for config, so config would not be given",
        ),
        (
            "@hookimpl\ndef nanocloud_runtime_providers(*, config): return []",
            PluginState.BROKEN,
            "nanocloud_runtime_providers takes config by keyword alone",
        ),
        (
            "@hookimpl\nasync def nanocloud_runtime_providers(config): return []",
            PluginState.BROKEN,
            "nanocloud_runtime_providers is async",
        ),
        (
            "@hookimpl(wrapper=True)\ndef nanocloud_runtime_providers(config):\n    return (yield)",
            PluginState.BROKEN,
            "wraps the hook nanocloud_runtime_providers",
        ),
    ],
)
def test_a_plugin_that_cannot_be_used_is_told_with_its_reason(
    site: Site, source: str, state: PluginState, reason: str
) -> None:
    site.install("acme-bad", "bad", source)
    site.install("acme-good", "good", runtime("fast"))
    host = site.host()
    bad, good = host.plugins
    assert bad.state is state
    assert reason in bad.reason
    assert (bad.distribution, bad.version, bad.hooks) == ("acme-bad", "1.2.3", ())
    assert good.state is PluginState.ACTIVE
    assert select(host).name == "fast"


def test_arguments_of_the_authors_own_may_have_defaults(site: Site) -> None:
    hook = "@hookimpl\ndef nanocloud_runtime_providers(config, size=3):\n    return [Runtime('fast')]\n"
    site.install("acme", "acme", hook)
    assert select(site.host()).name == "fast"


def test_one_module_of_two_names_is_one_plugin(site: Site) -> None:
    module = site.install("acme", "acme", runtime("fast"))
    (site.folder / "acme-1.2.3.dist-info" / "entry_points.txt").write_text(
        f"[nanocloud]\nacme = {module}\nagain = {module}\n"
    )
    acme, again = site.host().plugins
    assert acme.state is PluginState.ACTIVE
    assert (again.state, again.reason) == (PluginState.BROKEN, "its module is that of the plugin 'acme'")


@pytest.mark.parametrize("value", ["", "no module!"])
def test_an_entry_point_that_names_no_module_says_so(site: Site, value: str) -> None:
    site.install("acme", "acme", "")
    (site.folder / "acme-1.2.3.dist-info" / "entry_points.txt").write_text(f"[nanocloud]\nacme = {value}\n")
    info = only(site.host())
    assert (info.state, info.reason) == (PluginState.BROKEN, f"its entry point {value!r} names no module")


def test_the_refusal_of_another_version_is_told_where_the_provider_is_needed(site: Site) -> None:
    site.install("acme-runc", "runtime-runc", "NANOCLOUD_CONTRACTS = {'runtime': '2.0'}\n" + dedent(runtime("runc")))
    message, _ = refusal(site.host(), NodeConfig(runtime="runc"))
    assert message == (
        "node.runtime is 'runc', which no plugin offers [runtime-runc (acme-runc) is incompatible: "
        "built for runtime contract 2.0; this node speaks 1.0]"
    )


def test_a_hook_of_a_newer_node_may_be_marked_as_optional(site: Site) -> None:
    source = "@hookimpl(optionalhook=True)\ndef nanocloud_teleport_providers(config): return []\n\n"
    site.install("acme", "acme", source + dedent(runtime("fast")))
    info = only(site.host())
    assert (info.state, info.hooks) == (PluginState.ACTIVE, ("nanocloud_runtime_providers",))


BAD_ANSWERS = [
    ("raise ValueError('no such table')", "nanocloud_runtime_providers raised ValueError: no such table"),
    ("return None", "nanocloud_runtime_providers raised TypeError: 'NoneType' object is not iterable"),
    ("return ['crun']", "nanocloud_runtime_providers gave str, which is no RuntimeProvider"),
    ("return [Runtime('')]", "nanocloud_runtime_providers gave Runtime, which has no name"),
    ("return [Runtime('\\x1b[2J' * 100)]", "nanocloud_runtime_providers gave the name '\\x1b[2J"),
    ("return [Runtime('Fast Runtime')]", "nanocloud_runtime_providers gave the name 'Fast Runtime', which is no RFC"),
    ("return [Runtime]", "nanocloud_runtime_providers gave the class Runtime, which is no RuntimeProvider"),
    ("raise ValueError('\\x1b[2J \\ud800 \\u202e')", "nanocloud_runtime_providers raised ValueError: ?[2J ? ?"),
    ("raise type('E' * 10_000, (Exception,), {})", "nanocloud_runtime_providers raised EEE"),
    ("return [Runtime(None)]", "nanocloud_runtime_providers gave Runtime, which has no name"),
]


@pytest.mark.parametrize(("body", "reason"), BAD_ANSWERS)
def test_a_hook_that_answers_badly_breaks_its_plugin_alone(site: Site, body: str, reason: str) -> None:
    hook = f"@hookimpl\ndef nanocloud_runtime_providers(config):\n{indent(body, '    ')}\n"
    site.install("acme-bad", "bad", hook)
    site.install("acme-good", "good", runtime("fast"))
    host = site.host()
    assert select(host).name == "fast"
    assert {info.name: info.state for info in host.plugins} == {"bad": PluginState.BROKEN, "good": PluginState.ACTIVE}
    assert host.plugins[0].reason.startswith(reason)
    assert len(host.plugins[0].reason) < 1100
    assert host.plugins[0].reason.isprintable()


def test_a_bad_table_of_the_configuration_is_told_where_its_plugin_is_needed(site: Site) -> None:
    source = """
        import attrs

        @attrs.frozen(kw_only=True)
        class Settings:
            workers: int = 1

        @hookimpl
        def nanocloud_runtime_providers(config):
            config.section("fast", Settings)
            return [Runtime("fast")]
        """
    site.install("acme", "acme", source)
    assert select(site.host(), NodeConfig(sections={"fast": {"workers": 2}})).name == "fast"
    message, _ = refusal(site.host(), NodeConfig(sections={"fast": {"workers": "many"}}))
    assert "acme (acme) is broken" in message
    assert "fast.workers: expected an integer, got 'many'" in message


def test_a_hook_is_called_once_however_often_the_node_looks_at_the_answer(site: Site) -> None:
    site.install("acme", "acme", runtime("fast"))
    host = site.host()
    assert select(host) is select(host)
    assert select(host) is not select(host, NodeConfig(runtime="fast"))


# ---- one provider for a role -----------------------------------------------------------------------------------------


def test_the_only_provider_needs_no_choice(site: Site) -> None:
    site.install("acme", "acme", runtime("fast"))
    assert select(site.host()).name == "fast"


def test_several_providers_need_a_choice_and_all_are_listed(site: Site) -> None:
    site.install("acme-one", "one", runtime("fast"))
    site.install("acme-two", "two", runtime("small"))
    message, hint = refusal(site.host())
    assert message == "several runtime providers are installed: fast (acme-one), small (acme-two)"
    assert hint == "choose one as runtime under [node] in the configuration or by NANOCLOUD_RUNTIME"
    assert select(site.host(), NodeConfig(runtime="small")).name == "small"


def test_a_choice_that_nobody_offers_lists_what_is_there_and_what_failed(site: Site) -> None:
    site.install("acme-one", "one", runtime("fast"))
    site.install("acme-bad", "bad", "import no_such_module")
    message, hint = refusal(site.host(), NodeConfig(runtime="crun"))
    assert message.startswith("node.runtime is 'crun', which no plugin offers [bad (acme-bad) is broken: import raised")
    assert hint == "installed: fast (acme-one); install with: pip install nanocloud-runtime-crun"


@pytest.mark.parametrize("role", sorted(ROLES))
def test_a_role_that_nobody_fills_says_what_to_install(site: Site, role: str) -> None:
    error = site.host().missing(role)
    assert str(error) == f"no {role} provider is installed"
    assert f"pip install {ROLES[role].suggestion} " in error.hint


def test_a_missing_provider_is_an_error_only_where_it_is_needed(site: Site) -> None:
    host = site.host(core=True)
    assert isinstance(host.select("storage", StorageProvider, CONFIG), SqliteStorage)
    with pytest.raises(PluginError, match="no network provider is installed"):
        host.select("network", NetworkProvider, CONFIG)


def test_core_storage_is_taken_by_default_although_another_is_installed(site: Site) -> None:
    source = """
        from pathlib import Path
        from nanocloud.storage import SqliteStorage

        class Other(SqliteStorage):
            name = "other"

        @hookimpl
        def nanocloud_storage_providers(config):
            return [Other(Path("/nonexistent"))]
        """
    site.install("acme", "acme", source)
    host = site.host(core=True)
    assert host.select("storage", StorageProvider, CONFIG).name == "sqlite"
    assert host.select("storage", StorageProvider, NodeConfig(storage="other")).name == "other"


def test_two_providers_of_one_name_are_an_error_that_names_both_distributions(site: Site) -> None:
    site.install("acme-one", "one", runtime("fast"))
    site.install("acme-two", "two", runtime("fast"))
    with pytest.raises(PluginConflictError) as caught:
        select(site.host())
    assert "'fast' is offered by" in str(caught.value)
    assert "acme-one" in str(caught.value)
    assert "acme-two" in str(caught.value)
    assert select(site.host("two")).name == "fast"
