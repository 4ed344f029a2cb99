"""From macro providers to the one function that resolution calls."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from nanocloud.errors import InvalidError, PluginError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nanocloud.planning.resolution import Expand
    from nanocloud.providers.macro import MacroContext, MacroProvider, MacroValue


def expander(providers: Iterable[MacroProvider]) -> Expand:
    """A function that expands every macro of the providers.

    Raises:
        PluginError: two providers expand one macro.
    """
    owners: dict[str, MacroProvider] = {}
    for provider in providers:
        for macro in provider.macros:
            if macro in owners:
                raise PluginError(f"macro !{macro} is offered by {owners[macro].name} and by {provider.name}")
            owners[macro] = provider

    async def expand(macro: str, arguments: Sequence[str], context: MacroContext) -> MacroValue:
        if macro not in owners:
            near = difflib.get_close_matches(macro, owners, n=2)
            meant = f"; did you mean {' or '.join(f'!{name}' for name in near)}?" if near else ""
            known = ", ".join(f"!{name}" for name in sorted(owners)) or "none"
            raise InvalidError(f"!{macro} is not a known macro{meant}; macros: {known}")
        return await owners[macro].expand(macro, arguments, context)

    return expand
