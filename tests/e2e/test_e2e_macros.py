"""A macro of somebody else's on a real node: its package is installed as pip does it, and an image's label uses it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from examples import example_package
from nodes import TestNode, making_node
from tinyimages import DATABASE_FILES

UV = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
pytestmark = pytest.mark.skipif(UV is None, reason="needs uv")


def add(node: TestNode, name: str, **options: list[str]) -> None:
    node.layout.add(name, command=["/serve.sh"], files=DATABASE_FILES, labels={"io.nanocloud.options": options})


@pytest.fixture(scope="module")
def node(nodes_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestNode]:
    assert UV is not None
    folder = tmp_path_factory.mktemp("macro")
    package, target = example_package(folder / "package"), folder / "installed"
    install = [UV, "pip", "install", "--quiet", "--no-deps", "--python", sys.executable, "--target", str(target)]
    subprocess.run([*install, str(package)], check=True)
    with making_node(nodes_folder / "macros", environment={"PYTHONPATH": str(target)}) as made:
        yield made


def test_a_label_uses_it(node: TestNode) -> None:
    rows = {line.split()[0]: line for line in node.cli("plugin", "list").stdout.splitlines()}
    assert "active" in rows["url-macro"]
    assert "macro_providers" in rows["url-macro"]
    add(node, "caller", env_CALLBACK=["!url 8080 /oauth"])
    shown = node.cli("install", "caller", "--dry-run", code=2).stdout
    assert "+ option env_CALLBACK: http://caller.default.svc:8080/oauth (macro !url)" in shown
    node.cli("install", "caller")
    assert node.env_of("caller")["CALLBACK"] == "http://caller.default.svc:8080/oauth"
    assert node.cli("install", "caller", "--dry-run", code=0).stdout.endswith("no changes\n")


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("!url http", "env_CALLBACK: !url http is not !url PORT [PATH]"),
        (
            "!ulr 8080",
            "!ulr is not a known macro; did you mean !url?; macros: !bundle, !dns, ",
        ),
        ("!rand 999999999 hex", "'!rand 999999999 hex' is not !rand LEN CHARSET with LEN 1 to 4096"),
        ("!if a=b !url 80", '["env_CALLBACK"][0]: "!url" would stay text: macros do not nest'),
    ],
)
def test_a_wrong_macro_is_told_before_anything_happens(node: TestNode, token: str, said: str) -> None:
    add(node, "wrong", env_CALLBACK=[token])
    assert said in node.cli("install", "wrong", code=1).stderr
    assert node.get("bundles", "wrong") is None


def test_a_value_that_a_user_gives_is_not_expanded(node: TestNode) -> None:
    add(node, "plain", text=["a"], env_TEXT=["*text", "<$text>"])
    node.cli("install", "plain", "-o", "text=!url 8080 $text")
    assert node.env_of("plain")["TEXT"] == "<!url 8080 $text>"
