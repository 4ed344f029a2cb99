"""The five distributions as users install them: core alone, and each plugin alone on top of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the module beside this one

from environments import ROOT, UV, installed, pip_install, plugins, run
from examples import example_package

PLUGINS = sorted(path.name for path in (ROOT / "plugins").iterdir() if (path / "pyproject.toml").exists())
pytestmark = pytest.mark.skipif(UV is None, reason="needs uv")


def test_core_alone_is_a_working_command(tmp_path: Path) -> None:
    nanocloud = installed(tmp_path / "venv", "core")
    assert plugins(nanocloud, tmp_path) == {"core": "active"}
    said = subprocess.run([nanocloud, "--help"], check=True, capture_output=True, text=True).stdout
    assert "install" in said


@pytest.mark.parametrize("plugin", PLUGINS)
def test_each_plugin_works_on_core_without_its_siblings(plugin: str, tmp_path: Path) -> None:
    nanocloud = installed(tmp_path / "venv", "core", f"plugins/{plugin}")
    assert plugins(nanocloud, tmp_path) == {"core": "active", plugin: "active"}


RESOLVE = """
import trio
from nanocloud import builtin
from nanocloud.config import load
from nanocloud.planning import ResolveRequest, expander, image_contract, resolve
from nanocloud.plugins import PluginHost
from nanocloud.providers.macro import MacroProvider

async def main():
    macros = PluginHost(builtin=builtin).named("nanocloud_macro_providers", MacroProvider, config=load())
    contract = image_contract({"io.nanocloud.options": '{"env_CALLBACK": ["!url 8080 /oauth"]}'})
    request = ResolveRequest(namespace="default", bundle="guestbook", contract=contract)
    found = await resolve(request, expand=expander([offer.value for offer in macros.values()]))
    print(found.options["env_CALLBACK"].value)

trio.run(main)
"""


def test_a_macro_of_somebody_elses_works_once_it_is_installed(tmp_path: Path) -> None:
    """The package of the guide for plugin authors, as its readers would make it."""
    venv, package = tmp_path / "venv", example_package(tmp_path / "nanocloud-url-macro")
    nanocloud = installed(venv, "core")
    pip_install(venv, str(package), "pytest", "pytest-trio")
    assert plugins(nanocloud, tmp_path) == {"core": "active", "url-macro": "active"}
    python = str(venv / "bin" / "python")
    assert run([python, "-c", RESOLVE], tmp_path) == "http://guestbook.default.svc:8080/oauth\n"
    said = run([python, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(package / "test_url_macro.py")], tmp_path)
    assert " passed" in said
