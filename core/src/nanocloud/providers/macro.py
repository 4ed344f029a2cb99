"""The macro contract: ``!name args`` in an option's default becomes a value while a profile is resolved.

Values that users give are never expanded; a macro sees only defaults that the image's label declares.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

import attrs

from nanocloud.providers.base import Provider

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@attrs.frozen(kw_only=True)
class MacroContext:
    """What a macro may look at."""

    namespace: str
    bundle: str
    option: str
    """The option whose default holds the macro."""
    options: Mapping[str, str] = attrs.field(repr=False)
    """What is resolved so far, the user's choices first."""


@attrs.frozen(kw_only=True)
class MacroValue:
    value: str = attrs.field(repr=False)
    secret: bool = False
    """True: encrypted in the profile, masked in status, events and logs."""


class MacroProvider(Provider):
    """Expands one or more macros. Expansion changes nothing on the node: it only says a value, also where no option is
    resolved yet.

    The value is decided once and kept in the profile; a macro that was expanded is not asked again.
    """

    @property
    @abc.abstractmethod
    def macros(self) -> Sequence[str]:
        """The names it expands, without ``!``: ``[a-z][a-z0-9_]*``."""

    @abc.abstractmethod
    async def expand(self, macro: str, arguments: Sequence[str], context: MacroContext) -> MacroValue:
        """The value of ``!macro arguments...``.

        The value is text without NUL, of at most 32768 characters. A label is untrusted: whatever the arguments are,
        the answer is a value or an error of ``nanocloud.errors``.

        Raises:
            InvalidError: wrong arguments; the message shows the macro as written and what is allowed.
        """
