"""The tour of the README and the longer examples of the command line's page, typed on a node that has the images."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from catalogue import MINUTES, catalogue_fixture
from nodes import NANOCLOUD, TestNode
from terminals import terminal

sys.path.insert(0, str(Path(__file__).parents[1]))  # the module beside this folder

from documents import ROOT, blocks_of

pytestmark = pytest.mark.images
node = catalogue_fixture("mariadb", "wordpress")
BEFORE = "nanocloud dockyard build mariadb wordpress"
"""What stands above it in the tour has been done: a node is set up and runs, and has the images."""


def lines_of(page: str, first: str) -> list[str]:
    """The commands of the block that holds the line ``first``, from there on, without remarks."""
    (block,) = [block for block in blocks_of(ROOT / page) if first in block.text.splitlines()]
    lines = [line.partition("  #")[0].strip() for line in block.text.splitlines()]
    return [line for line in lines[lines.index(first) :] if line]


def type_in(node: TestNode, folder: Path, line: str) -> None:
    path = f"{NANOCLOUD.parent}:{os.environ['PATH']}"
    environment = {**node.environment, "PATH": path}
    command = node.inside("sh", "-ec", f"cd {folder} && {line}")
    if " -it " in line:
        with terminal(command, environment) as screen:
            screen.wait_for(r"MariaDB \[")
            screen.type("exit")
            assert screen.end() == 0
    elif line.endswith("--follow"):
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, start_new_session=True) as following:
            assert following.stdout is not None
            assert following.stdout.readline()
            os.killpg(following.pid, 15)
    else:
        # A dry run that would change something ends with 2.
        wanted = 2 if line.endswith("--dry-run") else 0
        node.run(*command[command.index("--") + 1 :], environment={"PATH": path}, code=wanted, seconds=MINUTES)


def test_the_tour_can_be_made(node: TestNode, tmp_path: Path) -> None:
    tour = lines_of("README.md", BEFORE)[1:]
    assert len(tour) == 8
    for line in tour:
        type_in(node, tmp_path, line)


def test_a_service_goes_and_comes_again_as_a_file(node: TestNode, tmp_path: Path) -> None:
    for line in lines_of("docs/cli.md", "nanocloud bundle export wordpress --secrets"):
        type_in(node, tmp_path, line)
    node.until_settled("wordpress")
