"""The package of a new plugin: its names, its source, and that it comes to the disk wholly or not at all."""

from __future__ import annotations

import ast
import inspect
import re
import resource
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from nanocloud.cli.main import main
from nanocloud.errors import AlreadyExistsError, NanocloudError, NotFoundError, UsageError
from nanocloud.providers import CONTRACTS as VERSIONS
from nanocloud.scaffold import CONTRACTS, new_plugin
from nanocloud.scaffold.contracts import Contract
from nanocloud.scaffold.names import plugin_name
from nanocloud.scaffold.skeleton import members, provider_module

NAMES = plugin_name("new-one")


def module_of(contract: Contract) -> ModuleType:
    made = ModuleType(f"nanocloud_new_one_{contract.name}")
    exec(provider_module(contract, NAMES, "Made"), made.__dict__)
    return made


@pytest.mark.parametrize(
    "name",
    ["", "A", "a_b", "a.b", "a--b", "-a", "a-", "1a", "a" * 64, "ä", "a b", "../a", "a\n", "nanocloud-a", "nanocloud-"],
)
def test_what_is_no_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        new_plugin(name, ["macro"], tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["core", "sqlite", "exec", "builtin", "taken", "spare", "keyspace", "images"])
def test_a_name_that_another_has_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for distribution in ("nanocloud-other", "nanocloud-spare"):
        info = tmp_path / "site" / f"{distribution.replace('-', '_')}-1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1\n")
        if distribution == "nanocloud-other":
            (info / "entry_points.txt").write_text("[nanocloud]\ntaken = other\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(AlreadyExistsError):
        new_plugin(name, ["storage"], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_macro_of_cores_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AlreadyExistsError, match="!rand is core's own"):
        new_plugin("rand", ["macro"], tmp_path / "new")
    new_plugin("rand", ["volume"], tmp_path / "new")


@pytest.mark.parametrize("provides", [[], ["runtimes"], ["macro", ""], ["extension"]])
def test_what_is_no_contract_is_refused(provides: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        new_plugin("new-one", provides, tmp_path / "new")


def test_nothing_that_is_there_is_touched(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("folder", "file", "link"):
        with pytest.raises(AlreadyExistsError):
            new_plugin("new-one", ["macro"], tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "link"]


@contextmanager
def small_files() -> Iterator[None]:
    """No file may be larger than 2 KiB: what writes a larger one fails in the middle of it.

    No fixture: pytest says how a test went before it tears down, and its own output may go to a file.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_failure_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    with small_files(), pytest.raises(NanocloudError, match=r"cannot write .*new: File too large"):
        new_plugin("new-one", ["storage"], tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_in_a_folder_that_is_not_there_names_that_folder(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=f"{tmp_path}/no/such is no folder"):
        new_plugin("new-one", ["macro"], tmp_path / "no" / "such" / "new")
    assert list(tmp_path.iterdir()) == []


def test_without_a_directory_it_is_named_as_the_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = new_plugin("new-one", ["macro"])
    assert (made.distribution, str(made.directory)) == ("nanocloud-new-one", "nanocloud-new-one")
    assert (tmp_path / "nanocloud-new-one" / "pyproject.toml").exists()


@pytest.mark.parametrize("contract", [Contract(name) for name in CONTRACTS], ids=str)
def test_a_skeleton_has_the_signatures_of_its_contract(contract: Contract) -> None:
    provider = module_of(contract).Made
    assert not inspect.isabstract(provider)
    for member in members(contract.provider):
        written = inspect.getattr_static(provider, member.name)
        written = written.fget if member.is_property else written
        if member.name != "lifespan":
            assert inspect.signature(written) == inspect.signature(member.function)
        assert inspect.iscoroutinefunction(written) == inspect.iscoroutinefunction(member.function)
        if member.name != "name":
            assert inspect.getdoc(written) == member.docstring


@pytest.mark.parametrize("contract", [Contract(name) for name in CONTRACTS], ids=str)
def test_a_method_that_is_not_written_says_what_the_contract_asks_of_it(contract: Contract, tmp_path: Path) -> None:
    made = new_plugin("new-one", [contract.name], tmp_path / "new")
    tree = ast.parse((made.directory / "src" / "nanocloud_new_one" / "provider.py").read_text())
    raised = {
        f"{contract.name}.{function.name}": ast.literal_eval(node.exc.args[0])
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in function.body
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and "not written" in ast.unparse(node.exc)
    }
    assert tuple(raised) == made.to_write
    for member in members(contract.provider):
        if (text := raised.get(f"{contract.name}.{member.name}")) is not None:
            assert text == f"{member.name} is not written yet. The contract begins: {member.sentence}"
            assert " ".join(member.docstring.split()).startswith(member.sentence)
    assert (made.to_write == ()) == (contract.name in ("macro", "binding"))


def test_a_plugin_of_several_contracts_has_a_module_and_a_suite_for_each(tmp_path: Path) -> None:
    made = new_plugin("new-one", ["volume", "macro", "volume"], tmp_path / "new")
    source = made.directory / "src" / "nanocloud_new_one"
    assert sorted(path.name for path in source.iterdir()) == [
        "__init__.py",
        "macro.py",
        "plugin.py",
        "py.typed",
        "volume.py",
    ]
    tests = (made.directory / "tests" / "test_conformance.py").read_text()
    assert "class TestNewOneVolume(VolumeProviderSuite):" in tests
    assert "class TestNewOneMacro(MacroProviderSuite):" in tests
    readme = (made.directory / "README.md").read_text()
    assert '[node]\nvolume = "new-one"\n```' in readme


def test_a_plugin_states_the_contracts_of_this_node(tmp_path: Path) -> None:
    made = new_plugin("new-one", CONTRACTS, tmp_path / "new")
    plugin = ModuleType("plugin")
    source = (made.directory / "src" / "nanocloud_new_one" / "plugin.py").read_text()
    exec(source[source.index("NANOCLOUD_CONTRACTS") : source.index("@hookimpl")], plugin.__dict__)
    assert {"extension": VERSIONS["extension"], **plugin.NANOCLOUD_CONTRACTS} == VERSIONS


def test_the_project_depends_on_this_release_line(tmp_path: Path) -> None:
    made = new_plugin("new-one", ["macro"], tmp_path / "new")
    project = tomllib.loads((made.directory / "pyproject.toml").read_text())["project"]
    assert project["dependencies"] == ["nanocloud>=0.1,<0.2"]
    assert project["requires-python"] == ">=3.11"
    assert project["entry-points"] == {"nanocloud": {"new-one": "nanocloud_new_one.plugin"}}


@pytest.mark.parametrize(
    ("name", "contracts", "classes"),
    [
        ("runtime-runc", ["runtime"], {"RuntimeRunc"}),
        ("lmdb", ["storage"], {"LmdbStorage"}),
        ("runtime-network", ["runtime", "network"], {"RuntimeNetworkRuntime", "RuntimeNetworkNetwork"}),
        ("storage-provider", ["storage"], {"OwnStorageProvider"}),
        ("macro-value", ["macro"], {"OwnMacroValue"}),
        ("exec-binding", ["binding"], {"OwnExecBinding"}),
        ("sandbox", ["network"], {"OwnSandboxNetwork"}),
        ("image", ["image"], {"OwnImage"}),
    ],
)
def test_a_class_is_named_by_plugin_and_contract_and_as_nothing_else(
    name: str, contracts: list[str], classes: set[str], tmp_path: Path
) -> None:
    made = new_plugin(name, contracts, tmp_path / "new")
    found: set[str] = set()
    for file in made.directory.glob("src/*/*.py"):
        tree = ast.parse(file.read_text())
        defined = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
        assert not defined & imported
        found |= defined
    assert found == classes
    tests = (made.directory / "tests" / "test_conformance.py").read_text()
    assert {f"Test{name}" for name in classes} == set(re.findall(r"^class (\w+)", tests, re.MULTILINE))


def test_the_command_says_what_was_written_and_what_is_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["plugin", "new", "new-one", "--provides", "volume", "--provides", "macro", "--directory", "a b"]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines() == [
        "wrote nanocloud-new-one to a b",
        "methods to write: volume.create, volume.publish, volume.unpublish, volume.delete, volume.list",
        "next:",
        "  cd 'a b'",
        "  pip install -e '.[test]'",
        "  pytest -x",
    ]
    assert main(words) == 1
    assert capsys.readouterr().err.startswith("error: a b exists already\n")
    assert main(["plugin", "new", "new-one", "--provides", "volumes"]) == 2
    assert "there are storage, runtime," in capsys.readouterr().err
