"""The documentation says what is there: tables are held against the code, examples run, links lead somewhere."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import attrs
import pytest
import typer.main
import yaml

sys.path.insert(0, str(Path(__file__).parent))  # the module beside this one

from documents import DOCS, READMES, pages_below

from nanocloud import builtin, hookspecs
from nanocloud.cli.app import app
from nanocloud.cli.commands import COMMANDS
from nanocloud.config import NodeConfig, load
from nanocloud.contracts import STATEMENT, contract_of
from nanocloud.macros import CHARSETS, TLS_FILES, BuiltinMacros
from nanocloud.models.builtin import builtin_registry
from nanocloud.models.bundle import BUNDLE, BundleCondition, BundlePhase, BundleSpec
from nanocloud.models.kinds import ALL_VERBS
from nanocloud.planning import (
    DesiredBundle,
    Inventory,
    Profile,
    ResolveRequest,
    Target,
    WorkloadPlan,
    diff,
    expander,
    image_contract,
    image_exports,
    label,
    plan,
    resolve,
)
from nanocloud.planning.plan import LABEL_CAPABILITIES
from nanocloud.planning.reserved import MAX_VALUE_LENGTH, Reserved, parse_mount_path
from nanocloud.planning.resolve import MAX_TOTAL_LENGTH
from nanocloud.planning.workload import TLS_DIRECTORY
from nanocloud.plugins import PluginHost, PluginState
from nanocloud.providers import CONTRACTS
from nanocloud.providers.macro import MacroContext, MacroProvider
from nanocloud.testkit import suites
from nanocloud.testkit.specs import DIGEST, labelled_image
from nanocloud_cni_bridge.config import BridgeConfig
from nanocloud_csi_loop.config import CsiLoopConfig
from nanocloud_dockyard import recipes
from nanocloud_dockyard.check.findings import RULES, Level
from nanocloud_dockyard.check.lint import lint
from nanocloud_dockyard.check.subject import Subject
from nanocloud_dockyard.check.tree import ImageTree
from nanocloud_dockyard.pages import pages
from nanocloud_dockyard.settings import DockyardConfig, LimitSettings, RegistrySettings
from nanocloud_runtime_crun.runtime import CrunConfig

ROOT = Path(__file__).parents[1]
CORE = ROOT / "core" / "src" / "nanocloud"
PLUGIN_SECTIONS: dict[str, type] = {
    "[cni-bridge]": BridgeConfig,
    "[csi-loop]": CsiLoopConfig,
    "[dockyard]": DockyardConfig,
    '[dockyard.registries."<host>"]': RegistrySettings,
    "[dockyard.limits]": LimitSettings,
    "[runtime-crun]": CrunConfig,
}


def read(name: str) -> str:
    return (ROOT / name).read_text()


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def section(text: str, heading: str) -> str:
    """What stands below a heading, to the next one of any level; raises where there is no such heading."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"no heading {heading!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of all tables, without heads; backquotes and escapes of Markdown are taken off."""
    lines = re.findall(r"^\|(.+)\|$", text, re.MULTILINE)
    heads = {index - 1 for index, line in enumerate(lines) if set(line) <= set("-| ")}
    cells = [
        [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)]
        for index, line in enumerate(lines)
        if index not in heads and index - 1 not in heads
    ]
    return [[cell.strip("`") if cell.count("`") == 2 else cell for cell in row] for row in cells]


def blocks(text: str) -> dict[str, str]:
    """Code blocks that have a title."""
    return dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```', text, re.MULTILINE | re.DOTALL))


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


# ---- all pages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [*DOCS, *READMES], ids=shown)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\[[^\]]+\]\(([^)\s]+)\)", without_code(page.read_text())):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        assert (page.parent / file).exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", (page.parent / file if file else page).read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*DOCS, *READMES], ids=shown)
def test_no_page_names_a_machine(page: Path) -> None:
    assert not re.findall(r"(?<![\w.~])/(?:work|home|root|tmp|Users)/\S*", page.read_text())


def linked(page: str) -> set[str]:
    """The pages that ``page`` links, as paths in the repository."""
    targets = re.findall(r"\]\(([^)#\s]+\.md)\)", read(page))
    return {shown((ROOT / page).parent.joinpath(target).resolve()) for target in targets}


def test_every_page_is_in_a_list() -> None:
    """From the README to the list of all pages, and from there to the list of the catalogue."""
    pages = {shown(page) for page in pages_below("docs")}
    assert "docs/README.md" in linked("README.md")
    assert pages - {"docs/README.md"} <= linked("docs/README.md") | linked("docs/catalogue/README.md")


def options_of(command: Any) -> set[str]:
    params = [param for param in command.params if param.param_type_name == "option"]
    return {name for param in params for name in (*param.opts, *param.secondary_opts)}


# ---- catalogue -------------------------------------------------------------------------------------------------------


def test_pages_of_the_catalogue_are_what_the_recipes_give() -> None:
    there = {path.name: path.read_text() for path in (ROOT / "docs" / "catalogue").iterdir()}
    assert there == pages(), "run make pages"


# ---- images ----------------------------------------------------------------------------------------------------------


async def planned(service: str, given: dict[str, str], *targets: Target) -> tuple[Target, WorkloadPlan]:
    """A service of the guide, from its labels to its plan; none of ``targets`` is installed."""
    page = blocks(read("docs/images.md"))
    labels = {
        "io.nanocloud.options": page[f"{service} options.json"],
        "io.nanocloud.exports": page[f"{service} exports.json"],
    }
    contract, by_name = image_contract(labels), {target.bundle: target for target in targets}
    request = ResolveRequest(namespace="default", bundle=service, contract=contract, given=given, targets=by_name)
    resolution = await resolve(request, expand=expander([BuiltinMacros()]))
    profile = Profile.of(resolution, service=service, image=DIGEST)
    reference = service if targets == () else "oci:/srv/images:guestbook"
    image = labelled_image(reference, labels)
    desired = DesiredBundle(namespace="default", name=service, service=service)
    made = plan(desired, profile, contract, image, Inventory(targets=by_name))
    return Target.of(service, "default", profile, image_exports(labels)), made


async def test_example_image_gives_the_plan_that_is_shown() -> None:
    mariadb, first = await planned("mariadb", {})
    _, second = await planned("guestbook", {"database_transport": "tls"}, mariadb)
    lines = []
    for made in (first, second):
        lines += [f"install {made.bundle} ({made.service})"]
        lines += [f"  {line.replace(DIGEST, 'sha256:...')}" for line in diff(None, made).text().splitlines()]
    assert blocks(read("docs/images.md"))["dry run"].splitlines() == lines


async def test_example_image_works_without_its_database() -> None:
    _, made = await planned("guestbook", {"database": "file", "admin_token": "t0ken"})
    assert made.services == made.bindings == ()
    assert not any(name.startswith("env_DB_") for name in made.options)
    assert [set(secret.values) for secret in made.secrets] == [{"admin_token", "env_ADMIN_TOKEN"}]


def write_first_image(folder: Path) -> None:
    """The recipe of the guide, as its reader writes it."""
    for title, text in blocks(read("docs/images.md")).items():
        if title.startswith("drop/"):
            (folder / title).parent.mkdir(parents=True, exist_ok=True)
            (folder / title).write_text(text)


def test_first_image_of_the_guide_keeps_every_rule(tmp_path: Path) -> None:
    write_first_image(tmp_path)
    recipe = recipes.load("drop", tmp_path)
    root = tmp_path / "root"
    shutil.copytree(tmp_path / "drop" / "scripts", root / "usr" / "lib" / "nanocloud")
    for path in (root / "usr").rglob("*"):
        path.chmod(0o755)  # as the Containerfile says
    (root / "bin").mkdir()
    (root / "bin" / "sh").touch()
    said = dict(re.findall(r"^([A-Z]+) (.+)$", (tmp_path / "drop" / "Containerfile").read_text(), re.MULTILINE))
    image = labelled_image(
        "drop",
        recipe.labels,
        user=said["USER"],
        volumes=(said["VOLUME"],),
        exposed_ports=(said["EXPOSE"],),
        entrypoint=tuple(json.loads(said["ENTRYPOINT"])),
    )
    found = lint(Subject(image=image, tree=ImageTree([root]), has_stop_signal="STOPSIGNAL" in said))
    assert [finding for finding in found if finding.rule != "volume-path"] == []  # packages and folders are not here


async def test_the_guides_dependant_fits_its_first_image(tmp_path: Path) -> None:
    write_first_image(tmp_path)
    labels = recipes.load("drop", tmp_path).labels
    request = ResolveRequest(namespace="default", bundle="drop", contract=image_contract(labels))
    drop = Profile.of(await resolve(request, expand=expander([BuiltinMacros()])), service="drop", image=DIGEST)
    own = {"io.nanocloud.options": blocks(read("docs/images.md"))["a dependant's options.json"]}
    by_name = {"drop": Target.of("drop", "default", drop, image_exports(labels))}
    request = ResolveRequest(namespace="default", bundle="app", contract=image_contract(own), targets=by_name)
    resolution = await resolve(request, expand=expander([BuiltinMacros()]))
    profile = Profile.of(resolution, service="app", image=DIGEST)
    image = labelled_image("app", own)
    desired = DesiredBundle(namespace="default", name="app", service="app")
    made = plan(desired, profile, image_contract(own), image, Inventory(targets=by_name))
    (step,) = made.bindings
    assert (step.command, step.target, step.owned, step.verify, step.revocable) == (
        "create_user",
        "drop",
        {"1": "app"},
        True,
        True,
    )
    assert made.options["env_STORE"].value == "http://drop.default.svc:8080/"


def test_rules_of_checks_are_documented() -> None:
    table = {row[0]: row[1:3] for row in rows(section(read("docs/images.md"), "Checking an image")) if len(row) == 4}
    assert table == {name: [rule.severity, rule.at_best.word] for name, rule in RULES.items()}
    levels = [row[0] for row in rows(section(read("docs/images.md"), "Checking an image")) if len(row) == 2]
    assert levels == [level.word for level in Level]


def test_reserved_names_are_documented() -> None:
    table = {row[0] for row in rows(section(read("docs/images.md"), "Reserved names"))}
    numbered = {Reserved.PORT, Reserved.VOLUME, Reserved.VOLUME_SIZE, Reserved.VOLUME_ENCRYPTED, Reserved.SECRET}
    named = {Reserved.ENV, Reserved.SECRET_ENV}
    assert table == {
        f"{kind.value}_<n>" if kind in numbered else f"{kind.value}_<VAR>" if kind in named else kind.value
        for kind in Reserved
    }


def test_paths_kept_from_volumes_are_documented() -> None:
    text = section(read("docs/images.md"), "Reserved names")
    listed = re.findall(r"`(/[^`]+)`", text.partition("below one of these:")[2].partition("\n\n")[0])
    assert len(listed) == 8
    for path in listed:
        with pytest.raises(ValueError, match="belongs to the node"):
            parse_mount_path(path)


def test_macros_are_documented() -> None:
    text = section(read("docs/images.md"), "Defaults")
    assert {row[0].split()[0].strip("`!") for row in rows(text)} == set(BuiltinMacros().macros)
    listed = re.findall(r"`(\w+)`", text.partition("Character sets of `!rand`:")[2].partition(".")[0])
    assert set(listed) == CHARSETS.keys()


def test_tls_files_are_documented() -> None:
    table = dict(rows(section(read("docs/images.md"), "TLS")))
    assert table == {f"!tls {name}": f"{TLS_DIRECTORY}/{file}" for name, file in TLS_FILES.items()}


def test_capabilities_of_labels_are_documented() -> None:
    text = section(read("docs/images.md"), "User, volumes and capabilities")
    granted = re.search(r"These are granted:(.*?)\. Any other", text, re.DOTALL)
    assert granted
    assert set(re.findall(r"`(\w+)`", granted[1])) == LABEL_CAPABILITIES


def test_limits_of_labels_are_documented() -> None:
    limits = [label.MAX_LABEL_BYTES, label.MAX_SETTINGS, label.MAX_TOKENS, label.MAX_TOKEN_LENGTH, label.MAX_WORDS]
    limits += [MAX_VALUE_LENGTH, MAX_TOTAL_LENGTH]
    assert [int(row[1]) for row in rows(section(read("docs/images.md"), "Limits"))] == limits


# ---- plugins ---------------------------------------------------------------------------------------------------------


def test_hooks_are_documented() -> None:
    specs = {name: spec for name, spec in vars(hookspecs).items() if hasattr(spec, "nanocloud_spec")}
    table = {row[0]: row for row in rows(section(read("docs/plugins.md"), "Hooks"))}
    assert table.keys() == specs.keys()
    for name, spec in specs.items():
        signature = inspect.signature(spec)
        assert table[name][1].strip("`") == (next(iter(signature.parameters), "none")), name
        assert re.fullmatch(rf"\w+\[{table[name][2]}\]", signature.return_annotation), name


def test_plugin_states_are_documented() -> None:
    table = [row[0] for row in rows(section(read("docs/plugins.md"), "How a plugin is found"))]
    assert table == [state.value for state in PluginState]


def test_contracts_and_suites_are_documented() -> None:
    text = read("docs/plugins.md")
    contracts = rows(section(text, "Contracts"))
    modules = {path.stem for path in (CORE / "providers").glob("[a-z]*.py")} - {"base"}
    assert {row[1].rpartition(".")[2] for row in contracts} == modules
    for name, module, _ in contracts:
        assert hasattr(importlib.import_module(module), name)
    listed = rows(section(text, "Testing a provider"))
    assert [row[0].rpartition(".")[2] for row in listed] == suites.__all__
    for name, contract, _ in listed:
        module, _, suite = name.rpartition(".")
        assert contract in str(getattr(importlib.import_module(module), suite).__orig_bases__)


def test_versions_of_contracts_are_documented() -> None:
    text = section(read("docs/plugins.md"), "Versions of contracts")
    assert {name: version for name, version, _ in rows(text)} == CONTRACTS
    assert all(contract_of(hook) == name for name, _, hook in rows(text) if hook.startswith("nanocloud_"))


@pytest.mark.parametrize("contract", [contract for contract in CONTRACTS if contract != "extension"])
def test_a_contracts_page_tells_of_every_method_and_every_error(contract: str) -> None:
    page = read(f"docs/contracts/{contract}.md")
    module = importlib.import_module(f"nanocloud.providers.{contract}")
    provider = getattr(module, f"{contract.capitalize()}Provider")
    told = set(re.findall(r"\b[A-Za-z_]+\b", page))
    assert {name for name in vars(provider) if not name.startswith("_")} <= told
    raised = {name for method in vars(provider).values() for name in re.findall(r"\w+Error", method.__doc__ or "")}
    assert raised <= told


@pytest.fixture
def example_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PluginHost:
    """The plugin of the guide, as it is when installed."""
    page = blocks(read("docs/plugins.md"))
    project = tomllib.loads(page["pyproject.toml"])["project"]
    [(name, module)] = project["entry-points"]["nanocloud"].items()
    (tmp_path / f"{module}.py").write_text(page[f"{module}.py"])
    info = tmp_path / f"{module}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (info / "entry_points.txt").write_text(f"[nanocloud]\n{name} = {module}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, module, raising=False)
    [found] = distributions(path=[str(tmp_path)])
    return PluginHost(builtin=builtin, installed=found.entry_points)


async def test_example_plugin_works(example_plugin: PluginHost) -> None:
    table = example_plugin.named("nanocloud_macro_providers", MacroProvider, config=NodeConfig())
    assert [(info.name, info.state) for info in example_plugin.plugins][1:] == [("url-macro", PluginState.ACTIVE)]
    context = MacroContext(namespace="default", bundle="guestbook", option="env_CALLBACK", options={})
    text = read("docs/plugins.md")
    setting, result = re.findall(r'"env_CALLBACK": \["!url ([^"]+)"\].*\n`(http[^`]+)`', text)[0]
    async with table["url"].value as provider:
        made = await expander([BuiltinMacros(), provider])("url", setting.split(), context)
    assert made.value == result


@pytest.mark.parametrize("name", ["test_conformance.py", "test_in_the_simulation.py"])
def test_example_test_of_a_provider_passes_in_an_empty_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(blocks(read("docs/plugins.md"))[name])
    [words] = re.findall(r"^pytest (.*)$", section(read("docs/plugins.md"), "Testing a provider"), re.MULTILINE)
    command = [sys.executable, "-m", "pytest", *words.split(), "-q", "-p", "no:cacheprovider", "--basetemp=tmp"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stdout


# ---- configuration ---------------------------------------------------------------------------------------------------


def default_of(field: attrs.Attribute[Any]) -> object:
    default = field.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        default = default.factory()
    if attrs.has(type(default)):
        return {}
    return str(default) if isinstance(default, Path) else list(default) if isinstance(default, tuple) else default


def documented_default(text: str) -> object:
    return None if text == "unset" else tomllib.loads(f"x = {text}")["x"]


@pytest.mark.parametrize(("heading", "cls"), [("`[node]`", NodeConfig), *PLUGIN_SECTIONS.items()])
def test_configuration_is_documented(heading: str, cls: type) -> None:
    page = read("docs/configuration.md")
    text = section(page, heading if heading.startswith("`") else f"`{heading}`")
    fields = {f.name: default_of(f) for f in attrs.fields(cls) if f.name not in ("sections", "source")}
    table = {row[0]: documented_default(row[1]) for row in rows(text) if not row[0].startswith(("NANO", "KUBE"))}
    assert table == fields


def test_variables_are_documented() -> None:
    page = read("docs/configuration.md")
    described = {row[2]: row[0] for row in rows(section(page, "`[node]`")) if len(row) == 4}
    samples: dict[str, tuple[str, object]] = {
        "require_client_certificate": ("true", True),
        "keep_unused_images_seconds": ("60", 60),
        "disable_plugins": ("a, b", ("a", "b")),
        "allow_plugins": ("a, b", ("a", "b")),
    }
    for variable, field in described.items():
        text, value = samples.get(field, ("/some/where", "/some/where"))
        found = getattr(load({variable: text}), field)
        assert (str(found) if isinstance(found, Path) else found) == value, variable
    sources = [*CORE.rglob("*.py"), *(ROOT / "plugins").glob("*/src/**/*.py")]
    read_anywhere = {name for file in sources for name in re.findall(r"\bNANOCLOUD_[A-Z_]*[A-Z]", file.read_text())}
    assert read_anywhere - {STATEMENT} <= {*described, *re.findall(r"^\| `(\w+)`", page, re.MULTILINE)}


@pytest.mark.parametrize("title", ["/etc/nanocloud/config.toml", "only what this node needs"])
def test_example_configuration_is_valid(tmp_path: Path, title: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(blocks(read("docs/configuration.md"))[title])
    config = load({"NANOCLOUD_CONFIG": str(file)})
    assert {*(config.allow_plugins or ())} <= {path.name for path in (ROOT / "plugins").iterdir()}
    for name in config.sections:
        config.section(name, PLUGIN_SECTIONS[f"[{name}]"])


# ---- command line ----------------------------------------------------------------------------------------------------


def commands() -> dict[str, Any]:
    """Every command by its words, of groups each of their commands."""
    root, found = typer.main.get_command(app), {}
    for name in root.list_commands(None):  # type: ignore[attr-defined]
        command = root.get_command(None, name)  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            found |= {f"{name} {sub}": below for sub, below in command.commands.items()}
        else:
            found[name] = command
    return found


def test_commands_and_their_options_are_documented() -> None:
    page = read("docs/cli.md")
    headings = re.findall(r"^### `nanocloud (.+)`$", page, re.MULTILINE)
    documented = {" ".join(re.findall(r"(?<!\S)[a-z]+(?!\S)", heading)): heading for heading in headings}
    there = commands()
    assert documented.keys() == there.keys()
    assert {name.split()[0] for name in there} >= COMMANDS.keys()
    for name, command in there.items():
        table = {row[0] for row in rows(section(page, f"`nanocloud {documented[name]}`"))}
        words = {word for cell in table for word in re.findall(r"--?[a-z][a-z-]*", cell)}
        help_and_completion = {"--help", "-h", "--install-completion", "--show-completion"}
        assert words == options_of(command) - help_and_completion, name


def test_plugin_show_prints_what_the_page_says(tmp_path: Path) -> None:
    first, _, shown = blocks(read("docs/cli.md"))["plugin show"].partition("\n")
    program, *words = first.removeprefix("$ ").split()
    (tmp_path / "config.toml").touch()
    environment = {**os.environ, "NANOCLOUD_CONFIG": str(tmp_path / "config.toml")}
    command = [str(Path(sys.executable).with_name(program)), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment)
    assert done.stdout == shown


# ---- API -------------------------------------------------------------------------------------------------------------


def test_kinds_are_documented() -> None:
    table = {row[0]: row[1:] for row in rows(section(read("docs/api.md"), "Kinds"))}
    kinds = {kind.kind: kind for kind in builtin_registry()}
    assert table.keys() == kinds.keys()
    for name, (path, short, verbs, below) in table.items():
        kind = kinds[name]
        prefix = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
        scope = "/namespaces/{namespace}" if kind.namespaced else ""
        assert path == f"{prefix}{scope}/{kind.plural}"
        assert short == " ".join(kind.short_names)
        assert (ALL_VERBS if verbs == "all" else tuple(verbs.split())) == tuple(sorted(kind.verbs))
        subresources = {sub.name for sub in kind.subresources} | ({"status"} if kind.has_status else set())
        assert set(below.replace("`", "").split()) == subresources


def test_bundle_is_documented() -> None:
    text = read("docs/api.md")
    fields = [BUNDLE.schema["properties"]["spec"]["properties"]]
    assert {row[0] for row in rows(section(text, "Bundle"))} == fields[0].keys()
    example = yaml.safe_load(blocks(text)["bundle"])
    assert example["spec"].keys() == fields[0].keys()
    assert len(example["spec"]) == len(attrs.fields(BundleSpec))
    BUNDLE.validate({**example, "spec": {k: v for k, v in example["spec"].items() if v is not None}})
    for word in [*BundleCondition, *BundlePhase]:
        assert f"`{word.value}`" in text


# ---- dependencies ----------------------------------------------------------------------------------------------------


def named(requirements: list[str]) -> set[str]:
    return {re.match(r"[A-Za-z0-9._-]+", requirement)[0] for requirement in requirements}  # type: ignore[index]


def test_every_dependency_says_why() -> None:
    page = read("docs/dependencies.md")
    for file in [ROOT / "core" / "pyproject.toml", *sorted((ROOT / "plugins").glob("*/pyproject.toml"))]:
        project = tomllib.loads(file.read_text())["project"]
        wanted = named(project["dependencies"])
        wanted |= {name for extra in project.get("optional-dependencies", {}).values() for name in named(extra)}
        heading = "`nanocloud` (core)" if project["name"] == "nanocloud" else f"`{project['name']}`"
        table = rows(section(page, heading))
        assert {row[0] for row in table} == wanted, file
        assert all(len(row) == 3 and all(row) for row in table), file
    groups = tomllib.loads(read("pyproject.toml"))["dependency-groups"]
    for group, heading in (("dev", "Development"), ("docs", "Documentation")):
        assert {row[0] for row in rows(section(page, heading))} == named(groups[group])


# ---- architecture and changes ----------------------------------------------------------------------------------------


def test_every_module_has_its_place() -> None:
    page = read("docs/architecture.md")
    listed = re.findall(r"^\| `([\w/]+\.py)` \|", page, re.MULTILINE)
    modules = {str(file.relative_to(CORE)) for file in CORE.rglob("*.py") if not file.name.startswith("_")}
    assert set(listed) == modules
    assert len(listed) == len(modules)
    for plugin in (ROOT / "plugins").iterdir():
        assert f"](../plugins/{plugin.name}/README.md)" in page


def test_fragments_have_a_number_an_area_and_a_heading() -> None:
    for file in (ROOT / "changes").iterdir():
        if file.name != "README.md":
            assert re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", file.name)
            assert re.match(r"# \S.*\n\n\S", file.read_text()), file.name
