"""``nanocloud plugin new``: the package of a plugin, generated from the contracts that it is to fill."""

from nanocloud.scaffold.contracts import CONTRACTS
from nanocloud.scaffold.package import new_plugin

__all__ = ["CONTRACTS", "new_plugin"]
