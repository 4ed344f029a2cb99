"""``nanocloud dockyard build|list|show`` as people type them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nanocloud.cli.main import main
from nanocloud_dockyard import commands
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
    failure: BuildError | None = None

    def build(self, service: str, *, rebuild_base: bool = False, force: bool = False) -> BuildResult:
        self.asked.append((service, rebuild_base, force))
        if self.failure:
            raise self.failure
        self._progress(service, "storing")
        return BuildResult(image=IMAGE, built=service == "redis", seconds=4.2)


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> type[FakeBuilder]:
    monkeypatch.setattr(FakeBuilder, "asked", [], raising=False)
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
    assert [row.split()[:2] for row in rows] == [[name, "no"] for name in ("mariadb", "nginx", "redis", "wordpress")]
    assert main(["dockyard", "list", "-o", "json"]) == 0
    assert [entry["service"] for entry in json.loads(capsys.readouterr().out)] == [row.split()[0] for row in rows]


def test_show_explains_a_service(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dockyard", "show", "wordpress"]) == 0
    shown = capsys.readouterr().out
    assert "database_transport" in shown
    assert "plain, tls" in shown
    assert "exports options:  host, port" in shown
    assert main(["dockyard", "show", "-o", "json", "mariadb"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["exports"] == {
        "options": ["host", "port"],
        "bindings": ["create_user", "verify_user", "revoke_user"],
    }
    assert main(["dockyard", "show", "wordpres"]) == 1
    assert "did you mean wordpress?" in capsys.readouterr().err
