from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from nanocloud.cli import groups
from nanocloud.cli.commands import COMMANDS
from nanocloud.cli.summary import summary
from nanocloud.errors import PluginError


class Plugins:
    """What the installed plugins answer, and how often they were asked."""

    def __init__(self) -> None:
        self.groups: dict[str, str] | None = {"dock": "Ships."}
        self.asked = 0

    def command_groups(self) -> dict[str, SimpleNamespace]:
        self.asked += 1
        if self.groups is None:
            raise PluginError("broken")
        return {name: SimpleNamespace(help=text) for name, text in self.groups.items()}


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Plugins:
    found = Plugins()
    monkeypatch.setattr("nanocloud.cli.plugins.command_groups", found.command_groups)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return found


def test_plugins_are_asked_once(plugins: Plugins) -> None:
    assert [groups.known_groups() for _ in range(3)] == [{"dock": "Ships."}] * 3
    assert plugins.asked == 1


def test_plugins_are_asked_again_once_something_was_installed(
    plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "site-packages"
    packages.mkdir()
    monkeypatch.syspath_prepend(str(packages))
    groups.known_groups()
    plugins.groups = {"dock": "Ships.", "yard": "Builds."}
    (packages / "yard.dist-info").mkdir()
    os.utime(packages, ns=(1, 1))
    assert set(groups.known_groups()) == {"dock", "yard"}


@pytest.mark.parametrize("change", ["file", "variable"])
def test_plugins_are_asked_again_once_the_configuration_changed(
    change: str, plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.toml"
    monkeypatch.setenv("NANOCLOUD_CONFIG", str(file))
    groups.known_groups()
    plugins.groups = {}
    if change == "file":
        file.write_text("[node]\ndisable_plugins = ['dock']\n")
    else:
        monkeypatch.setenv("NANOCLOUD_DISABLE_PLUGINS", "dock")
    assert groups.known_groups() == {}


def test_a_group_never_hides_a_command_of_core(plugins: Plugins) -> None:
    plugins.groups = {"status": "Mine.", "dock": "Ships."}
    assert groups.known_groups() == {"dock": "Ships."}


def test_help_is_shown_without_plugins_that_cannot_be_asked(plugins: Plugins) -> None:
    plugins.groups = None
    assert all(f"\n  {name} " in summary() for name in COMMANDS)
    plugins.groups = {"dock": "Ships."}
    assert "\n  dock       Ships." in summary()  # a failure is not remembered


@pytest.mark.parametrize("content", ["", "[]", '{"mark": 1}', "\xff"])
def test_a_broken_memory_is_as_none(content: str, plugins: Plugins, tmp_path: Path) -> None:
    groups.known_groups()
    (file,) = (tmp_path / ".cache" / "nanocloud").iterdir()
    file.write_text(content, encoding="latin-1")
    assert groups.known_groups() == {"dock": "Ships."}
    assert plugins.asked == 2


def test_nothing_is_remembered_in_the_home_of_another(
    plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: tmp_path.stat().st_uid + 1)
    assert groups.known_groups() == {"dock": "Ships."}
    assert list(tmp_path.iterdir()) == []


def test_what_is_remembered_can_be_forgotten(plugins: Plugins, tmp_path: Path) -> None:
    groups.known_groups()
    groups.forget()
    groups.forget()
    assert list((tmp_path / ".cache").iterdir()) == []
