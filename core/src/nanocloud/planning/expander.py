"""From macro providers to the one function that resolution calls.

Providers come from plugins: what they raise besides errors of ours, and what they return that is no value, ends here as
an error that names macro and provider.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from nanocloud.errors import InvalidError, NanocloudError, PluginError, ProviderError
from nanocloud.planning.label import MACRO
from nanocloud.providers.macro import MacroValue

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nanocloud.planning.resolution import Expand
    from nanocloud.providers.macro import MacroContext, MacroProvider


def expander(providers: Iterable[MacroProvider]) -> Expand:
    """A function that expands every macro of the providers.

    Raises:
        PluginError: two providers expand one macro, or one is named as no label can write it.
    """
    owners: dict[str, MacroProvider] = {}
    for provider in providers:
        for macro in provider.macros:
            if not MACRO.fullmatch(macro):
                raise PluginError(f"macro provider {provider.name} offers {macro!r}; a name is a-z, 0-9 and '_'")
            if macro in owners:
                raise PluginError(f"macro !{macro} is offered by {owners[macro].name} and by {provider.name}")
            owners[macro] = provider

    async def expand(macro: str, arguments: Sequence[str], context: MacroContext) -> MacroValue:
        if macro not in owners:
            near = difflib.get_close_matches(macro, owners, n=2)
            meant = f"; did you mean {' or '.join(f'!{name}' for name in near)}?" if near else ""
            known = ", ".join(f"!{name}" for name in sorted(owners)) or "none"
            raise InvalidError(f"!{macro} is not a known macro{meant}; macros: {known}")
        return await _expand(owners[macro], macro, arguments, context)

    return expand


async def _expand(provider: MacroProvider, macro: str, arguments: Sequence[str], context: MacroContext) -> MacroValue:
    try:
        made = await provider.expand(macro, arguments, context)
    except NanocloudError:
        raise
    except Exception as exc:
        # Its text could hold an argument, and that a secret; the type does not.
        raise ProviderError(f"!{macro} failed in macro provider {provider.name}: {type(exc).__name__}") from exc
    if not isinstance(made, MacroValue) or type(made.value) is not str or type(made.secret) is not bool:
        raise ProviderError(f"!{macro} gave no value in macro provider {provider.name}, but {type(made).__name__}")
    return made
