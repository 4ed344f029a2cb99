"""Every code block of the documentation is executed, or checked by what would execute it.

Python runs: a page's titled blocks are files in a folder, its tests run there, and each block without a title is a
script there. Commands are parsed by the command line itself; where their output is shown too they run. Data is read as
what it is. What is none of these has a title and stands in ``HELD``, beside the tests that use it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer.main
import yaml

sys.path.insert(0, str(Path(__file__).parent))  # the module beside this one

from documents import PAGES, ROOT, Block, blocks_of, write_files

from nanocloud.bindings import BindingConfig
from nanocloud.cli.app import app
from nanocloud.config import load
from nanocloud_cni_bridge.config import BridgeConfig
from nanocloud_csi_loop.config import CsiLoopConfig
from nanocloud_dockyard.settings import DockyardConfig
from nanocloud_runtime_crun.runtime import CrunConfig

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
CHECKED = {"python", "sh", "console", "toml", "json", "yaml", "dockerfile"}
HELD = {
    ("docs/images.md", "drop/nginx.conf"): "tests/e2e/test_guide_first_image.py",
    ("docs/images.md", "dry run"): "tests/test_docs.py",
}
"""Blocks of other languages, and the tests that use them."""
PACKAGES = {"docs/plugins.md": "tests/test_packaging.py", "docs/write-a-runtime.md": "tests/test_write_a_runtime.py"}
"""Pages whose Python is also installed as a package, and the tests that do it."""
WALK = "docs/write-a-runtime.md"
"""Its package runs there only: it changes the machine."""
SECTIONS: dict[str, type] = {
    "binding-exec": BindingConfig,
    "cni-bridge": BridgeConfig,
    "csi-loop": CsiLoopConfig,
    "dockyard": DockyardConfig,
    "runtime-crun": CrunConfig,
}
"""Tables of the configuration; one of an example's own plugin is that example's affair."""
INSTRUCTIONS = {"FROM", "RUN", "COPY", "USER", "VOLUME", "EXPOSE", "ENTRYPOINT", "STOPSIGNAL", "ENV", "ARG", "LABEL"}


def of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


def test_every_block_is_checked_by_something() -> None:
    unchecked = [str(block) for block in BLOCKS if block.language not in CHECKED]
    held = [str(block) for block in BLOCKS if (block.page, block.title) in HELD]
    assert unchecked == held, "give the block a language that is checked, or a title and a test that uses it"


def test_blocks_that_tests_hold_are_named_there() -> None:
    there = {(block.page, block.title) for block in BLOCKS}
    for (page, title), test in HELD.items():
        assert (page, title) in there
        assert Path(page).name in (ROOT / test).read_text()
    for page, test in PACKAGES.items():
        assert Path(page).stem in (ROOT / test).read_text() + (ROOT / "tests" / "examples.py").read_text()


def test_no_fence_is_left_open() -> None:
    for page in PAGES:
        assert len(re.findall(r"^```", page.read_text(), re.MULTILINE)) == 2 * len(blocks_of(page)), page


# ---- Python ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", sorted({block.page for block in of("python")} - {WALK}))
def test_python_of_a_page_runs(page: str, tmp_path: Path) -> None:
    write_files(ROOT / page, tmp_path)
    scripts = [block for block in of("python") if block.page == page and not block.title]
    tests = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("test_*.py"))
    modules = {block.title for block in of("python") if block.page == page and block.title}
    assert {title for title in modules if not (tmp_path / title).exists()} == set(), "a title is the name of a file"
    assert tests or not modules, "modules that no test of the page uses"
    for block in scripts:
        done = run(["-W", "error", "-c", block.text], tmp_path)
        assert done.returncode == 0, f"{block}: {done.stderr}"
    if tests:
        plugins = ["-p", "no:anyio", "-p", "no:cacheprovider", "-p", "nanocloud.testkit.plugin"]
        done = run(["-m", "pytest", "-q", *plugins, "-o", "trio_mode=true", *tests], tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert " passed" in done.stdout


@pytest.mark.parametrize("page", sorted({block.page for block in of("python")}))
def test_python_of_a_page_is_written_as_ours_is(page: str, tmp_path: Path) -> None:
    write_files(ROOT / page, tmp_path)
    ours = 'lint.isort.known-first-party = ["nanocloud", "nanocloud_*"]'
    (tmp_path / "ruff.toml").write_text(f'extend = "{ROOT / "pyproject.toml"}"\nsrc = [".", "src"]\n{ours}\n')
    for command in (["check", "--extend-ignore", "S"], ["format", "--check"]):
        done = run(["-m", "ruff", *command, "--no-cache", "."], tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", sorted({block.page for block in of("python")} - {WALK}))
def test_python_of_a_page_is_strictly_typed(page: str, tmp_path: Path) -> None:
    write_files(ROOT / page, tmp_path)
    cache = ROOT / ".cache" / "mypy-docs"
    done = run(["-m", "mypy", "--strict", "--cache-dir", str(cache), "."], tmp_path)
    assert done.returncode == 0, done.stdout


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{folder / 'src'}", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        stdin=subprocess.DEVNULL,
    )


# ---- commands --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", of("sh"), ids=str)
def test_commands_can_be_given(block: Block) -> None:
    shell = "sh" if block.title else "bash"
    done = subprocess.run([shell, "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if block.title:
        return  # a script, not what a reader types
    for line in block.text.replace("\\\n", " ").splitlines():
        for command in commands_of(line):
            check_command(command)


@pytest.mark.parametrize("block", of("console"), ids=str)
def test_commands_say_what_is_shown(block: Block, tmp_path: Path) -> None:
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "NANOCLOUD_STATE_DIR": str(tmp_path),
    }
    for example in block.text.removeprefix("$ ").split("\n$ "):
        command, _, said = example.partition("\n")
        done = subprocess.run(
            shlex.split(command), env=environment, capture_output=True, text=True, check=True, cwd=tmp_path
        )
        assert done.stdout.rstrip() == said.rstrip(), command


def commands_of(line: str) -> list[list[str]]:
    """The words of each command of a pipe or a list."""
    commands: list[list[str]] = [[]]
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    for word in lexer:
        if set(word) <= set("|&;<>"):
            commands.append([])
        else:
            commands[-1].append(word)
    return commands


def check_command(words: list[str]) -> None:
    if words[:1] == ["make"]:
        targets = re.search(r"^\.PHONY:(.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert targets
        assert words[1] in targets[1].split(), words
    if words[:1] == ["nanocloud"]:
        parse(words[1:])
    if words[:1] and words[0].startswith("packaging/"):
        assert all((ROOT / word).exists() for word in words)


def parse(words: list[str]) -> None:
    """As the command line does: it raises for unknown commands, options, and arguments that do not fit."""
    command, context, name = typer.main.get_command(app), None, "nanocloud"
    while hasattr(command, "get_command"):
        context = command.context_class(command, info_name=name, parent=context)
        name, words = words[0], words[1:]
        command = command.get_command(context, name)
        assert command is not None, f"no command {name}"
    command.make_context(name, list(words), parent=context)


# ---- data ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", of("toml"), ids=str)
def test_toml_is_what_it_says(block: Block, tmp_path: Path) -> None:
    data = tomllib.loads(block.text)
    if "project" in data:
        assert data["build-system"]["build-backend"]
        assert data["project"]["entry-points"]["nanocloud"]
    elif not block.title.endswith("recipe.toml"):
        file = tmp_path / "config.toml"
        file.write_text(block.text)
        config = load({"NANOCLOUD_CONFIG": str(file)})
        for name in config.sections.keys() & SECTIONS.keys():
            config.section(name, SECTIONS[name])


@pytest.mark.parametrize("block", of("json"), ids=str)
def test_json_is_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("block", of("yaml"), ids=str)
def test_yaml_is_an_object(block: Block) -> None:
    assert {"apiVersion", "kind"} <= yaml.safe_load(block.text).keys()


@pytest.mark.parametrize("block", of("dockerfile"), ids=str)
def test_instructions_of_a_containerfile_are_known(block: Block) -> None:
    for line in block.text.replace("\\\n", " ").splitlines():
        instruction, _, rest = line.partition(" ")
        if not line or line.startswith("#"):
            continue
        assert instruction in INSTRUCTIONS
        if instruction == "RUN":
            subprocess.run(["sh", "-n"], input=rest, check=True, text=True)
