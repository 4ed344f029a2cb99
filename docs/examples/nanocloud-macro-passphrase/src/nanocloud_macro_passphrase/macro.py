"""The macro provider: ``!passphrase [WORDS]`` becomes as many random words."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from nanocloud.errors import InvalidError
from nanocloud.providers.macro import MacroContext, MacroProvider, MacroValue

from nanocloud_macro_passphrase.words import BITS, word

DEFAULT_WORDS = 5
"""80 bits: out of reach even for who has stolen a hash."""
_COUNTS = {str(count): count for count in range(4, 33)}  # as a label writes them: no sign, no zero in front


class PassphraseMacro(MacroProvider):
    @property
    def name(self) -> str:
        return "passphrase"

    @property
    def macros(self) -> Sequence[str]:
        return ("passphrase",)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        yield

    async def expand(self, macro: str, arguments: Sequence[str], context: MacroContext) -> MacroValue:
        """Secret. Each word is worth 16 bits.

        Raises:
            InvalidError: WORDS is no number from 4 to 32.
        """
        count = DEFAULT_WORDS if not arguments else _COUNTS.get(arguments[0])
        if count is None or len(arguments) > 1:
            shown = " ".join([f"!{macro}", *arguments])
            raise InvalidError(f"{shown} is not !{macro} [WORDS]; words are 4 to 32, {DEFAULT_WORDS} if not given")
        return MacroValue(value="-".join(word(secrets.randbits(BITS)) for _ in range(count)), secret=True)
