"""A real node for a measure: the server as a process, with its own state, in a network namespace of its own.

It is the node that the end-to-end tests use, so that both see the same thing; ``making_node(folder)`` sets one up,
starts it, and takes it off the machine again. Its API answers in its network namespace (``node.entered()``), its
commands run by ``node.cli(...)`` or, to be timed, from within that namespace with ``default_environment(node)``.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "e2e"))

from nodes import NANOCLOUD, TestNode, is_gone, is_ready, making_node
from tinyimages import Layout

__all__ = ["NANOCLOUD", "Layout", "TestNode", "default_environment", "is_gone", "is_ready", "making_node"]


def default_environment(node: TestNode) -> dict[str, str]:
    """Of a command on a node with the default configuration: most have no file that a command would have to read."""
    return {name: value for name, value in node.environment.items() if name != "NANOCLOUD_CONFIG"}
