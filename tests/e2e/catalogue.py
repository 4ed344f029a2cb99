"""Nodes that hold built images of the real catalogue, for tests that use a service as its users do.

Set NANOCLOUD_TEST_STATE to a folder; images that are missing there are built first, which downloads packages.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from nodes import TestNode, making_node

from nanocloud_dockyard.builder import Builder

STATE = os.environ.get("NANOCLOUD_TEST_STATE")
MINUTES = 300.0
"""How long an installation may take on a busy machine, in seconds."""
_NUMBERS = count()


def built(*services: str) -> Path:
    """The OCI layout folder with the images of ``services``, brought up to date."""
    builder = Builder(Path(str(STATE)), progress=lambda subject, message: print(f"{subject}: {message}"))
    for service in services:
        builder.build(service)
    return builder.layout


@contextmanager
def catalogue_node(folder: Path, *services: str, config: str = "", **options: Any) -> Iterator[TestNode]:
    """A running node below ``folder`` (the fixture ``nodes_folder``) that holds the images of ``services``.

    ``options`` are those of ``making_node``.
    """
    layout = built(*services)
    with making_node(folder / f"c{next(_NUMBERS)}", config=config, start=False, **options) as node:
        shutil.rmtree(node.layout.folder)
        shutil.copytree(layout, node.layout.folder, copy_function=partial(_link, folder))
        node.layout.reload()
        node.start()
        yield node


def _link(folder: Path, source: str, target: str) -> None:
    """A blob is copied once to where the nodes live, for all of them."""
    if Path(source).parent.name != "sha256":
        shutil.copy2(source, target)  # the index, to which a test may add
        return
    blob = folder / "blobs" / Path(source).name
    if not blob.exists():
        blob.parent.mkdir(exist_ok=True)
        shutil.copy2(source, blob)
    os.link(blob, target)


NodeFixture = Callable[[Path], Iterator[TestNode]]


def catalogue_fixture(*services: str, config: str = "") -> NodeFixture:
    """A module's fixture ``node``: ``node = catalogue_fixture("mariadb", "wordpress")``."""

    @pytest.fixture(scope="module", name="node")
    def fixture(nodes_folder: Path) -> Iterator[TestNode]:
        with catalogue_node(nodes_folder, *services, config=config) as made:
            yield made

    return fixture
