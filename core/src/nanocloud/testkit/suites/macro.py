"""What every macro provider must keep."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

import attrs
import pytest

from nanocloud.errors import InvalidError, NanocloudError
from nanocloud.planning.reserved import MAX_VALUE_LENGTH
from nanocloud.providers.macro import MacroContext, MacroProvider, MacroValue
from nanocloud.testkit.suites.base import ProviderSuite

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CONTEXT = MacroContext(namespace="default", bundle="web", option="a", options={"port": "8080", "name": "Ann B."})
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
# Words as an untrusted label could write them; what an option puts in may hold spaces.
_STRANGE: tuple[tuple[str, ...], ...] = (
    (),
    ("",),
    ("x",) * 63,
    ("x" * MAX_VALUE_LENGTH,),
    ("-1",),
    ("٣",),
    ("a b", "$a"),
    ("\x1b[2J", "\n"),
    ("../../etc/passwd",),
)


class MacroProviderSuite(ProviderSuite[MacroProvider]):
    contract = "macro"
    examples: ClassVar[Sequence[str]] = ()
    """Macros as labels write them, ``url 8080 /oauth``, one at least of each that the provider offers."""
    mistakes: ClassVar[Sequence[str]] = ()
    """Such that must be refused; empty only where nothing can be wrong."""
    context: ClassVar[MacroContext] = CONTEXT

    async def expand(self, provider: MacroProvider, text: str) -> MacroValue:
        macro, *arguments = text.split()
        return await provider.expand(macro, arguments, self.context)

    async def test_macros_are_named_as_labels_write_them(self, make_provider: Callable[[], MacroProvider]) -> None:
        """The names it expands, without ``!``: ``[a-z][a-z0-9_]*``."""
        names = make_provider().macros
        assert names
        assert all(_NAME.fullmatch(name) for name in names)
        assert len(set(names)) == len(names)
        assert {example.split()[0] for example in self.examples} == set(names), "examples must have one of each"

    async def test_examples_have_values_that_an_option_can_hold(self, provider: MacroProvider) -> None:
        """The value is text without NUL, of at most 32768 characters."""
        for example in self.examples:
            made = await self.expand(provider, example)
            assert isinstance(made, MacroValue), example
            assert type(made.value) is str, example
            assert len(made.value) <= MAX_VALUE_LENGTH, example
            assert "\0" not in made.value, example
            made.value.encode()

    async def test_mistakes_are_refused_with_the_macro_as_written(self, provider: MacroProvider) -> None:
        """InvalidError: wrong arguments; the message shows the macro as written and what is allowed."""
        for mistake in self.mistakes:
            with pytest.raises(InvalidError) as caught:
                await self.expand(provider, mistake)
            assert f"!{mistake}" in str(caught.value)

    async def test_strange_arguments_end_in_a_value_or_in_an_error(self, provider: MacroProvider) -> None:
        """A label is untrusted: whatever the arguments are, the answer is a value or an error of
        ``nanocloud.errors``."""
        for macro in provider.macros:
            for arguments in _STRANGE:
                try:
                    made = await provider.expand(macro, arguments, self.context)
                except NanocloudError:
                    continue
                assert type(made.value) is str, (macro, arguments)

    async def test_a_secret_value_is_not_in_its_repr(self, provider: MacroProvider) -> None:
        """True: encrypted in the profile, masked in status, events and logs."""
        for example in self.examples:
            made = await self.expand(provider, example)
            assert not made.secret or made.value not in repr(made), example

    async def test_nothing_else_of_the_node_is_needed(self, provider: MacroProvider) -> None:
        """Expansion changes nothing on the node: it only says a value, also where no option is resolved yet."""
        bare = attrs.evolve(self.context, options={})
        for example in self.examples:
            macro, *arguments = example.split()
            assert isinstance(await provider.expand(macro, arguments, bare), MacroValue)
