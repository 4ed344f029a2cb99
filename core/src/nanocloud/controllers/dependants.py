"""Which bundles are looked at again when another one changes."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_Key = tuple[str, str]
"""Namespace and name of a bundle."""


class Dependants:
    """Grows as bundles say whom they wait for or use, and forgets a bundle as a whole when it is gone."""

    def __init__(self) -> None:
        self._dependants: defaultdict[_Key, set[_Key]] = defaultdict(set)
        self._targets: defaultdict[_Key, set[_Key]] = defaultdict(set)

    def add(self, bundle: _Key, target: str) -> None:
        """``bundle`` depends on ``target`` in its namespace."""
        key = bundle[0], target
        self._dependants[key].add(bundle)
        self._targets[bundle].add(key)

    def of(self, target: _Key) -> Sequence[_Key]:
        return sorted(self._dependants.get(target, ()))  # one order, whatever strings hash to

    def forget(self, bundle: _Key) -> None:
        for target in self._targets.pop(bundle, ()):
            self._dependants[target].discard(bundle)
            if not self._dependants[target]:
                del self._dependants[target]

    def clear(self) -> None:
        self._dependants.clear()
        self._targets.clear()
