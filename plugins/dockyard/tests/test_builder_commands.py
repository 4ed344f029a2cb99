"""``nanocloud dockyard build|list|show`` as people type them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

from nanocloud.cli.main import main
from nanocloud_dockyard import commands, recipes
from nanocloud_dockyard.builder import Builder, BuildError, BuildResult
from nanocloud_dockyard.layout_writer import Published

IMAGE = Published(service="redis", digest="sha256:0", recipe="", created="", size_bytes=1)


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOCLOUD_STATE_DIR", str(tmp_path / "state"))
    config = tmp_path / "config.toml"
    config.write_text("")
    monkeypatch.setenv("NANOCLOUD_CONFIG", str(config))


class FakeBuilder(Builder):
    asked: list[tuple[str, bool, bool]]
    given: list[Mapping[str, str] | None]
    failure: BuildError | None = None

    def build(
        self,
        service: str,
        *,
        rebuild_base: bool = False,
        force: bool = False,
        arguments: Mapping[str, str] | None = None,
    ) -> BuildResult:
        self.asked.append((service, rebuild_base, force))
        self.given.append(arguments)
        if self.failure:
            raise self.failure
        self._progress(service, "storing")
        return BuildResult(image=IMAGE, built=service == "redis", seconds=4.2)


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> type[FakeBuilder]:
    monkeypatch.setattr(FakeBuilder, "asked", [], raising=False)
    monkeypatch.setattr(FakeBuilder, "given", [], raising=False)
    monkeypatch.setattr(FakeBuilder, "failure", None)
    monkeypatch.setattr(commands, "Builder", FakeBuilder)
    return FakeBuilder


def test_build_tells_what_it_does(builder: type[FakeBuilder], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dockyard", "build", "redis", "nginx"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "redis: storing",
        "redis: built in 4 s",
        "nginx: storing",
        "nginx: up to date",
    ]


def test_build_makes_the_base_anew_once(builder: type[FakeBuilder]) -> None:
    assert main(["dockyard", "build", "--rebuild-base", "--force", "redis", "nginx"]) == 0
    assert builder.asked == [("redis", True, True), ("nginx", False, True)]


def test_build_knows_all_names_before_it_begins(builder: type[FakeBuilder], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dockyard", "build", "redis", "mariabd"]) == 1
    assert capsys.readouterr().err == "error: the catalogue has no recipe 'mariabd'\n  near: mariadb\n"
    assert builder.asked == []


def test_build_arguments_reach_the_service_that_has_them(
    builder: type[FakeBuilder], monkeypatch: pytest.MonkeyPatch
) -> None:
    having(monkeypatch, redis=["REDIS_BINARY"])
    assert main(["dockyard", "build", "redis", "nginx", "--build-arg", "REDIS_BINARY=/srv/a=b"]) == 0
    assert builder.given == [{"REDIS_BINARY": "/srv/a=b"}, {}]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["REDIS_BINARY"], "--build-arg is 'REDIS_BINARY'; it must be NAME=VALUE"),
        (["REDIS_BINARY="], "--build-arg is 'REDIS_BINARY='; it must be NAME=VALUE"),
        (["OTHER=x"], "--build-arg names 'OTHER', which redis, nginx does not know\n  known: REDIS_BINARY of redis"),
        (["REDIS_BINARY=x", "REDIS_BINARY=y"], "--build-arg REDIS_BINARY is given twice"),
    ],
)
def test_build_arguments_that_cannot_be_are_refused_before_anything_is_built(
    builder: type[FakeBuilder],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    having(monkeypatch, redis=["REDIS_BINARY"])
    options = [part for word in words for part in ("--build-arg", word)]
    assert main(["dockyard", "build", "redis", "nginx", *options]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert builder.asked == []


def having(monkeypatch: pytest.MonkeyPatch, **arguments: list[str]) -> None:
    """Recipes that fetch a file for each argument."""
    real = recipes.load

    def load(service: str, catalog: Path) -> recipes.Recipe:
        found = tuple(
            recipes.Artifact(file=name.lower(), url="https://a.example/x", sha256="0" * 64, argument=name)
            for name in arguments.get(service, [])
        )
        return attrs.evolve(real(service, catalog), artifacts=found)

    monkeypatch.setattr(recipes, "load", load)


def test_failed_build_shows_the_end_of_the_output(
    builder: type[FakeBuilder], capsys: pytest.CaptureFixture[str]
) -> None:
    builder.failure = BuildError("redis: buildah build exited with 7: no", hint="see the log", tail="one\n\x1b[31mtwo")
    assert main(["dockyard", "build", "redis"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "  | one"
    assert "\x1b" not in lines[1]
    assert lines[2:] == ["error: redis: buildah build exited with 7: no", "  see the log"]


def test_list_shows_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dockyard", "list"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["SERVICE", "BUILT", "DESCRIPTION"]
    assert [row.split()[:2] for row in rows] == [[name, "no"] for name in recipes.services()]
    assert main(["dockyard", "list", "-o", "json"]) == 0
    assert [entry["service"] for entry in json.loads(capsys.readouterr().out)] == [row.split()[0] for row in rows]


def test_show_explains_a_service(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dockyard", "show", "wordpress"]) == 0
    shown = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in shown.splitlines() if line}
    assert rows["database_transport"] == ["database_transport", "plain", "plain,", "tls"]
    assert rows["database_password"] == ["database_password", "!rand", "32", "alnum", "secret"]
    assert rows["env_WORDPRESS_TITLE"] == ["env_WORDPRESS_TITLE", "$title", "title"]
    for line in (
        "uses services:    database: mariadb",
        "runs in them:     create_user $database_name $database_user $database_password $database_transport "
        "(with database=mariadb)",
        "exports options:  host, port, tls_port",
        "exports bindings: none",
    ):
        assert line in shown.splitlines()
    assert main(["dockyard", "show", "-o", "json", "mariadb"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["exports"]["options"] == ["host", "port"]
    assert facts["exports"]["bindings"] == ["create_user", "revoke_user", "verify_user"]
    assert facts["schema"]["properties"]["volume_size_1"]["default"] == "1Gi"
    assert main(["dockyard", "show", "wordpres"]) == 1
    assert "did you mean wordpress?" in capsys.readouterr().err


def test_a_recipe_can_lie_anywhere(
    builder: type[FakeBuilder], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("drop", "Not_A_Name"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Containerfile").write_text("FROM nanocloud/debian:12\n")
    for file, text in (("recipe.toml", 'description = "x"'), ("options.json", "{}"), ("exports.json", "{}")):
        (tmp_path / "drop" / file).write_text(text)
    monkeypatch.chdir(tmp_path)
    assert main(["dockyard", "build", "./drop", str(tmp_path / "drop"), "redis"]) == 0
    assert [name for name, *_ in builder.asked] == ["drop", "drop", "redis"]
    for word, told in (
        ("./none", "./none is no folder with a recipe: it has no Containerfile"),
        ("./Not_A_Name", "'Not_A_Name' is no name for a service"),
    ):
        assert main(["dockyard", "build", word]) == 2
        assert told in capsys.readouterr().err
