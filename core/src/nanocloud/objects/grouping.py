"""Ways to find the few objects of a kind that belong to something, without reading all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from nanocloud.models.meta import owner_uids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from nanocloud.models.kinds import ResourceKind
    from nanocloud.models.meta import Object


@attrs.frozen(eq=False)
class Grouping:
    """Objects of a kind by the groups that ``groups_of`` puts each one in; pure.

    Made once, at the top of a module: the store keeps an index for each. Fields that the kind encrypts are not there to
    group by.
    """

    kind: ResourceKind
    groups_of: Callable[[Object], Iterable[str]]


def by_owner(kind: ResourceKind) -> Grouping:
    """By the uids of the owner references."""
    return Grouping(kind, owner_uids)
