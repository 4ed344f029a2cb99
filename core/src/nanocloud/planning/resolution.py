"""What resolution takes and gives, as data; ``resolve.py`` does the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import attrs

if TYPE_CHECKING:
    from nanocloud.planning.contract import ImageContract
    from nanocloud.planning.profile import Profile, ResolvedOption
    from nanocloud.planning.workload import Target
    from nanocloud.providers.macro import MacroContext, MacroValue


class Expand(Protocol):
    """``!macro arguments...`` -> its value; ``expander`` makes one from macro providers."""

    async def __call__(self, macro: str, arguments: Sequence[str], context: MacroContext) -> MacroValue: ...


@attrs.frozen(kw_only=True)
class ResolveRequest:
    namespace: str
    bundle: str
    contract: ImageContract
    given: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """``spec.options``. An optional option with choices that is given as the empty string selects nothing."""
    previous: Profile | None = None
    """What was decided before and is kept; ``given`` overrides it."""
    targets: Mapping[str, Target] = attrs.field(factory=dict)
    """Selected bundle -> what it offers; ``select_services`` says which are needed."""


@attrs.frozen(kw_only=True)
class Resolution:
    options: Mapping[str, ResolvedOption]
    """Sorted by name. Optional options that hold no value are absent."""
    services: Mapping[str, str]
    """Option -> the bundle that it selects."""
