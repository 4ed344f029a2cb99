"""The recipes that come with the package say what the planner understands, and broken recipes are refused by name."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from nanocloud.errors import InvalidError, NotFoundError
from nanocloud.planning.label import image_contract
from nanocloud_dockyard import recipes

SERVICES = recipes.services()


def recipe(folder: Path, **files: str) -> Path:
    """A catalogue of one good recipe, ``thing``, with some files replaced; an empty text removes the file."""
    good = {
        "Containerfile": "FROM nanocloud/debian:12\n",
        "recipe.toml": 'description = "A thing"\n',
        "options.json": '{"port": ["1"]}',
        "exports.json": '{"options": ["port"]}',
    }
    thing = folder / "thing"
    thing.mkdir()
    for name, text in (good | {name.replace("_", "."): text for name, text in files.items()}).items():
        if text:
            (thing / name).write_text(text)
    return folder


def test_the_first_catalogue_is_here() -> None:
    assert {"mariadb", "nginx", "redis", "wordpress"} <= set(SERVICES)


@pytest.mark.parametrize("service", SERVICES)
def test_recipe_speaks_the_planners_language(service: str) -> None:
    loaded = recipes.load(service)
    contract = image_contract(loaded.labels)
    exported = set(loaded.exports.options) - {"host"}  # which the planner supplies
    assert exported <= set(contract.options)
    assert set(loaded.exports.bindings) == {file.name for file in (loaded.folder / "scripts").glob("bindings/*")}
    assert "volume_1" in contract.options


@pytest.mark.parametrize("service", SERVICES)
def test_recipe_asks_for_services_and_bindings_that_exist(service: str) -> None:
    loaded = recipes.load(service)
    own = image_contract(loaded.labels).options
    for key, tokens in loaded.options.items():
        if match := re.fullmatch(r"\??(\w+)=&([\w-]+)", key):
            option, target = match.groups()
            exports = recipes.load(target).exports
            for token in tokens:
                if token.startswith("&"):
                    assert token[1:].split()[0] in exports.bindings
                required = token[1:].partition("=")[0] if token.startswith("*") else ""
                if required.startswith(f"{option}_") and required not in own:
                    assert required.removeprefix(f"{option}_") in exports.options


@pytest.mark.parametrize("service", SERVICES)
def test_image_runs_as_its_own_user_without_capabilities(service: str) -> None:
    loaded = recipes.load(service)
    assert loaded.capabilities == ()
    assert "io.nanocloud.capabilities" not in loaded.labels
    (user,) = re.findall(r"^USER (\d+):(\d+)$", (loaded.folder / "Containerfile").read_text(), re.MULTILINE)
    assert "0" not in user


def check_script(script: Path) -> None:
    text = script.read_text()
    interpreter = text.splitlines()[0].removeprefix("#!")
    if "python" in interpreter:  # the image's own, which need not be here
        compile(text, script, "exec")
        return
    flag = "-c" if interpreter.endswith("perl") else "-n"
    subprocess.run((interpreter, flag, script), check=True, capture_output=True)


@pytest.mark.parametrize("service", SERVICES)
def test_scripts_parse(service: str) -> None:
    scripts = [path for path in (recipes.CATALOG / service / "scripts").rglob("*") if path.is_file()]
    assert {"start.sh", "ready.sh"} <= {script.name for script in scripts}
    for script in scripts:
        check_script(script)


def test_scripts_of_the_base_parse() -> None:
    scripts = [path for path in (recipes.CATALOG / "_base").iterdir() if path.name != "Containerfile"]
    assert "run-together" in {script.name for script in scripts}
    for script in scripts:
        check_script(script)


@pytest.mark.parametrize("service", SERVICES)
def test_labels_are_one_line_of_json(service: str) -> None:
    for name in ("io.nanocloud.options", "io.nanocloud.exports"):
        label = recipes.load(service).labels[name]
        assert "\n" not in label
        assert json.dumps(json.loads(label), separators=(",", ":"), ensure_ascii=False) == label


def test_unknown_recipe_lists_near_names() -> None:
    with pytest.raises(NotFoundError) as caught:
        recipes.load("mariabd")
    assert caught.value.hint == "near: mariadb"
    for name in ("_base", "../catalog/nginx", ""):
        with pytest.raises(NotFoundError):
            recipes.load(name)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"options_json": ""}, "recipe thing has no options.json"),
        ({"options_json": '["port"]'}, "must be one object whose values are lists of strings"),
        ({"options_json": '{"port": "1"}'}, "must be one object whose values are lists of strings"),
        ({"options_json": '{"port": [], "port": []}'}, "'port' stands there twice"),
        ({"options_json": "{"}, "options.json is not JSON"),
        ({"exports_json": '{"option": []}'}, "recipe thing, exports.json"),
        ({"recipe_toml": "description = 5"}, "description: "),
        ({"recipe_toml": "description"}, "recipe.toml is not TOML"),
        ({"recipe_toml": 'description = "x"\ncapabilities = ["CHOWN"]'}, "capabilities holds 'CHOWN'"),
    ],
)
def test_broken_recipe_is_refused_where_it_is_broken(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidError, match=re.escape(message)):
        recipes.load("thing", recipe(tmp_path, **files))


def test_capabilities_become_a_label(tmp_path: Path) -> None:
    catalog = recipe(tmp_path, recipe_toml='description = "x"\ncapabilities = ["CAP_NET_BIND_SERVICE"]')
    assert recipes.load("thing", catalog).labels["io.nanocloud.capabilities"] == '["CAP_NET_BIND_SERVICE"]'


def test_links_are_no_part_of_a_recipe(tmp_path: Path) -> None:
    catalog = recipe(tmp_path)
    (catalog / "thing" / "shadow").symlink_to("/etc/shadow")
    with pytest.raises(InvalidError, match="symbolic link"):
        recipes.load("thing", catalog)


def test_digest_follows_names_and_contents_and_nothing_else(tmp_path: Path) -> None:
    catalog = recipe(tmp_path)
    file = catalog / "thing" / "Containerfile"
    before = recipes.load("thing", catalog).digest
    file.chmod(0o700)
    file.touch()
    assert recipes.load("thing", catalog).digest == before
    file.write_text("FROM nanocloud/debian:12\nRUN true\n")
    changed = recipes.load("thing", catalog).digest
    (catalog / "thing" / "more").mkdir()
    (catalog / "thing" / "more" / "a").write_text("")
    assert len({before, changed, recipes.load("thing", catalog).digest}) == 3


def test_a_recipe_has_limits(tmp_path: Path) -> None:
    catalog = recipe(tmp_path)
    with (catalog / "thing" / "big").open("wb") as file:
        file.truncate(17 * 1024 * 1024)
    with pytest.raises(InvalidError, match="more than 1000 files or 16777216 bytes"):
        recipes.load("thing", catalog)
