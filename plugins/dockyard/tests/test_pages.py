"""Pages say what recipes say: each fact is found on the page, and what cannot be told is refused by name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from nanocloud.cli.main import main
from nanocloud.errors import InvalidError
from nanocloud_dockyard import pages, recipes

STORE = {
    "port": ["7000"],
    "port_1": ["*port", "$port/tcp"],
    "port_2": ["127.0.0.1:81->80/tcp"],
    "password": ["!rand 20 alnum"],
    "volume_1": ["/var/lib/store"],
    "env_CERT": ["!tls cert"],
}
APP = {
    "store=&store": ["*store_host", "*store_port", "*name", "&create_thing $name a|b"],
    "store=none": [],
    "store=other": ["*motto"],
    "store=far": ["*way=tunnel"],
    "way=road": [],
    "way=tunnel": [],
    "name": ["!bundle"],
    "title": [""],
    "?motto": [],
    "address": [],
}
SCRIPT = "#!/bin/sh\n# create_thing NAME MODE\n#\n# Make NAME,\n# or make it so.\nexit 0\n"


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    """Two recipes: ``store``, and ``app`` that can use it."""
    exports = {"options": ["host", "port"], "bindings": ["create_thing"], "owned": {"create_thing": [1]}}
    for service, options, exported in (("store", STORE, exports), ("app", APP, {})):
        folder = tmp_path / service
        (folder / "scripts" / "bindings").mkdir(parents=True)
        (folder / "Containerfile").write_text("FROM nanocloud/debian:12\n")
        (folder / "recipe.toml").write_text(f'description = "A {service}"\n')
        (folder / "options.json").write_text(json.dumps(options))
        (folder / "exports.json").write_text(json.dumps(exported))
    (tmp_path / "store" / "scripts" / "bindings" / "create_thing").write_text(SCRIPT)
    return tmp_path


def test_page_tells_options_ports_volumes_and_exports(catalog: Path) -> None:
    text = pages.page("store", catalog)
    assert text.startswith("# store\n\nA store.\n\n## Install\n")
    for line in (
        "| `port` | `7000` |  |",
        "| `password` | 20 random characters (alnum) | Secret. |",
        "Other services in the namespace `default` reach it as `store.default.svc`.",
        "| `port_1` | `7000/tcp` |  |",
        "| `port_2` | `80/tcp` | port 81 of 127.0.0.1 |",
        "nanocloud install store --option 'port_1=7000->7000/tcp'",
        "| `volume_1` | `/var/lib/store` | `1Gi`, option `volume_size_1` |",
        "- `create_thing NAME MODE`: Make NAME, or make it so. NAME belongs to one service alone.",
    ):
        assert line in text.splitlines()
    assert "take these values from it: `host`, `port`." in text
    assert "Used by [app](app.md)." in text
    assert "## TLS" in text
    assert "env_CERT" not in text


def test_page_tells_choices_and_the_services_behind_them(catalog: Path) -> None:
    text = pages.page("app", catalog)
    for line in (
        "nanocloud dockyard build store app",
        "nanocloud install app --option store=none",
        "| `store` | `store` | `store`, `none`, `other`, `far` | `name`, `motto`, `way=tunnel` |",
        "| `name` | the bundle's name |  |  |",
        "| `title` | empty |  |  |",
        "| `motto` | none |  |  |",
        "| `address` | must be given |  |  |",
        "| `store=store` | [store](store.md) | `host`, `port` | `create_thing $name a\\|b` |",
    ):
        assert line in text.splitlines()
    for heading in ("## Ports", "## TLS", "## For services that use it"):
        assert heading not in text
    assert "--option store=other" not in text  # alone, they would be refused
    assert "--option store=far" not in text


def test_notes_go_where_they_belong_and_are_no_part_of_the_image(catalog: Path) -> None:
    before = recipes.load("store", catalog).digest
    notes = "Hello.\n\n## Options\n\n- `port`: Where it\n  listens.\n- `port_1`: The door.\n\n## Limits\n\nNone.\n"
    (catalog / "store" / "notes.md").write_text(notes)
    text = pages.page("store", catalog)
    assert "A store.\n\nHello.\n\n## Install\n" in text
    assert "| `port` | `7000` |  | Where it listens. |" in text
    assert "| `port_1` | `$port/tcp` | `port` | The door. |" in text
    assert text.endswith("\n\n## Limits\n\nNone.\n")
    assert text.count("## Options") == 1
    assert recipes.load("store", catalog).digest == before


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("notes.md", "## Options\n\n- `prot`: x\n", "explains prot; the recipe has no such option"),
        ("notes.md", "## Options\n\nport: x\n", "'port: x' is not of the form"),
        ("scripts/bindings/create_thing", "#!/bin/sh\nexit 0\n", "must begin with a comment that says how it is used"),
        ("scripts/bindings/create_thing", SCRIPT.replace("# create_", "# drop_"), "must begin with a comment"),
    ],
)
def test_what_cannot_be_told_is_refused_by_name(catalog: Path, file: str, text: str, message: str) -> None:
    (catalog / "store" / file).write_text(text)
    with pytest.raises(InvalidError, match=re.escape(message)):
        pages.page("store", catalog)


def test_index_links_every_page(catalog: Path) -> None:
    made = pages.pages(catalog)
    assert made.keys() == {"README.md", "app.md", "store.md"}
    assert "| [app](app.md) | A app | [store](store.md) |" in made["README.md"].splitlines()


def test_folder_of_pages_is_brought_up_to_date(tmp_path: Path) -> None:
    folder = tmp_path / "catalogue"
    folder.mkdir()
    (folder / "gone.md").write_text("# gone\n")
    pages.main(folder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == pages.pages()


def test_show_prints_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dockyard", "show", "redis", "-o", "markdown"]) == 0
    assert capsys.readouterr().out == pages.page("redis")
