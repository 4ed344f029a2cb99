"""The contracts that plugins fulfil, one module each.

A provider is built without touching the host, opened once by the node (``async with``), and closed in reverse order.
Its methods are async under trio, safe to call concurrently for different objects, and cancellable at every await: a
cancelled call leaves nothing behind, or something that calling it again, ``list`` and ``remove`` put right.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTRACTS: Mapping[str, str] = MappingProxyType(
    {
        "storage": "1.0",
        "runtime": "1.0",
        "network": "1.0",
        "volume": "1.0",
        "image": "1.0",
        "macro": "1.0",
        "binding": "1.0",
        "extension": "1.0",
    }
)
"""The version MAJOR.MINOR of each contract that this node speaks; ``extension`` is all hooks without providers.

The major is raised where an existing provider may break: a method, an argument, a promise or an error changes or goes,
or the node asks for something new. The minor is raised where something optional is added: a power of its own class, an
argument with a default that providers may leave out, a field that they may ignore.
"""
