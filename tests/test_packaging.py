"""The five distributions as users install them: core alone, and each plugin alone on top of it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the module beside this one

from environments import ROOT, UV, installed, pip_install, plugins, run
from examples import example_package

PLUGINS = sorted(path.name for path in (ROOT / "plugins").iterdir() if (path / "pyproject.toml").exists())
pytestmark = pytest.mark.skipif(UV is None, reason="needs uv")


SERVE = """
import trio
from nanocloud.config import load
from nanocloud.identity.assets import SecureAssets
from nanocloud.node import serve_until_signal
from nanocloud.observability.logs import configure

configure("text")
config = load()
SecureAssets(config.secure_assets).prepare()
trio.run(serve_until_signal, config)
"""


@contextmanager
def serving(nanocloud: Path, environment: dict[str, str], folder: Path) -> Iterator[None]:
    """The environment's server, as ``nanocloud server`` runs it for root."""
    command = [str(nanocloud.with_name("python")), "-c", SERVE]
    with subprocess.Popen(command, env=environment, cwd=folder, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            lines = []
            while "nanocloud is serving" not in (lines or [""])[-1]:
                line = server.stderr.readline()
                assert line, "".join(lines)
                lines.append(line)
            yield
        finally:
            server.terminate()


def test_core_alone_is_a_working_command_and_a_working_server(tmp_path: Path) -> None:
    nanocloud = installed(tmp_path / "venv", "core")
    assert plugins(nanocloud, tmp_path) == {"core": "active"}
    said = subprocess.run([nanocloud, "--help"], check=True, capture_output=True, text=True).stdout
    assert "install" in said
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "NANOCLOUD_LISTEN": listen,
        "NANOCLOUD_STATE_DIR": str(tmp_path / "state"),
        "NANOCLOUD_RUN_DIR": str(tmp_path / "run"),
    }

    def cli(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [nanocloud, *words], env=environment, cwd=tmp_path, check=False, capture_output=True, text=True
        )

    (tmp_path / "state").mkdir(mode=0o700)
    with serving(nanocloud, environment, tmp_path):
        assert "no services" in cli("status").stdout
        refused = cli("install", "nginx")
        assert refused.returncode == 1
        assert refused.stderr.startswith("error: no runtime provider is installed")
        assert "pip install nanocloud-runtime-crun" in refused.stderr


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
    nanocloud = installed(venv, "core[testkit]")
    pip_install(venv, str(package))
    assert plugins(nanocloud, tmp_path) == {"core": "active", "url-macro": "active"}
    python = str(venv / "bin" / "python")
    assert run([python, "-c", RESOLVE], tmp_path) == "http://guestbook.default.svc:8080/oauth\n"
    said = run(
        [python, "-m", "pytest", "-q", "-p", "nanocloud.testkit.plugin", "-p", "no:cacheprovider", str(package)],
        tmp_path,
    )
    assert " passed" in said
