"""The contracts that plugins fulfil, one module each; what all of them ask for stands in ``base``.

Docstrings are the contract, word for word: the suites of ``nanocloud.testkit.suites`` hold them sentence by sentence.
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
