"""Real nodes: the fixture ``node`` is one that runs, for all tests of a module; ``new_node`` makes one for a test."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the modules beside this one

from inventory import cgroups_named, environments_of, loops_below, mounts_below
from nodes import TestNode, making_node
from tinyimages import BUSYBOX

TOOLS = ("crun", "conmon", "nft", "ip", "nsenter", "unshare", "losetup", "mkfs.ext4")
HERE = Path(__file__).parent
NUMBERS = count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    lacking += [] if BUSYBOX.exists() else ["busybox-static"]
    for item in items:
        if item.path.parent != HERE:
            continue
        item.add_marker(pytest.mark.root)
        if os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))
        elif lacking:
            item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(lacking)}"))


@pytest.fixture(scope="session")
def nodes_folder(disk: Path) -> Iterator[Path]:
    """Where nodes live; when all are done, no trace of them may be left on the machine."""
    yield disk
    left = {
        "mounts": mounts_below(f"{disk}/"),
        "loop devices": loops_below(f"{disk}/"),
        "cgroups": cgroups_named(f"nce2e-{os.getpid()}-"),
        "processes": environments_of(str(disk)),
        "state": [str(path) for name in ("s", "r") for path in disk.glob(f"*/{name}")],
    }
    assert not any(left.values()), left


@pytest.fixture(scope="module")
def node(nodes_folder: Path) -> Iterator[TestNode]:
    with making_node(nodes_folder / str(next(NUMBERS))) as made:
        yield made


@pytest.fixture
def new_node(nodes_folder: Path) -> Iterator[Callable[..., TestNode]]:
    """Makes nodes that live as long as the test; takes the options of ``making_node``."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(making_node(nodes_folder / str(next(NUMBERS)), **options))
