from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from nanocloud.errors import InvalidError, PluginError, ProviderError
from nanocloud.macros import BuiltinMacros
from nanocloud.planning import ResolveRequest, expander, resolve
from nanocloud.providers.macro import MacroContext, MacroProvider, MacroValue
from nanocloud.testkit.planning import contract_of
from nanocloud.testkit.specs import macro_context

CONTEXT = macro_context()


async def test_a_macro_goes_to_the_provider_that_offers_it() -> None:
    value = await expander([BuiltinMacros()])("tls", ["ca"], CONTEXT)
    assert value.value == "/run/nanocloud/tls/ca.crt"


async def test_an_unknown_macro_lists_the_known_ones() -> None:
    with pytest.raises(InvalidError, match=r"!rnd is not a known macro; did you mean !rand\?; macros: !bundle, !dns"):
        await expander([BuiltinMacros()])("rnd", [], CONTEXT)


def test_two_owners_of_one_macro_are_refused() -> None:
    with pytest.raises(PluginError, match="macro !bundle is offered by builtin and by builtin"):
        expander([BuiltinMacros(), BuiltinMacros()])


class Foreign(MacroProvider):
    """A macro of somebody else's that answers whatever the test says."""

    def __init__(self, answer: Any, macro: str = "foreign") -> None:
        self._answer, self._macro = answer, macro

    @property
    def name(self) -> str:
        return "foreign"

    @property
    def macros(self) -> Sequence[str]:
        return (self._macro,)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        yield

    async def expand(self, macro: str, arguments: Sequence[str], context: MacroContext) -> MacroValue:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer  # type: ignore[no-any-return]


async def test_a_macro_that_breaks_is_an_error_that_names_it_and_holds_no_argument() -> None:
    with pytest.raises(ProviderError) as caught:
        await expander([Foreign(KeyError("hunter2"))])("foreign", ["hunter2"], CONTEXT)
    assert str(caught.value) == "!foreign failed in macro provider foreign: KeyError"


@pytest.mark.parametrize("answer", [None, "text", MacroValue(value=7), MacroValue(value="a", secret=1)])  # type: ignore[arg-type]
async def test_what_is_no_value_is_refused(answer: Any) -> None:
    with pytest.raises(ProviderError, match="!foreign gave no value in macro provider foreign"):
        await expander([Foreign(answer)])("foreign", [], CONTEXT)


@pytest.mark.parametrize("macro", ["", "Upper", "a-b", "!a", "a b"])
def test_a_macro_that_no_label_can_name_is_refused(macro: str) -> None:
    with pytest.raises(PluginError, match="macro provider foreign offers"):
        expander([Foreign(None, macro)])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("x" * 32769, "is 32769 characters long; the limit is 32768"),
        ("a\0b", "holds a NUL character"),
        ("a\ud800", "is not valid Unicode text"),
        ("x", "is not port"),
    ],
)
async def test_the_value_of_a_macro_is_checked_like_any_other(value: str, said: str) -> None:
    contract = contract_of({"port_1": ["!foreign"]})
    request = ResolveRequest(namespace="default", bundle="web", contract=contract)
    with pytest.raises(InvalidError, match="port_1: .*" + said):
        await resolve(request, expand=expander([Foreign(MacroValue(value=value))]))


async def test_the_value_of_a_macro_is_not_expanded_again() -> None:
    contract = contract_of({"a": ["!foreign"], "b": ["*a", "<$a>"], "c": ["*a", "!if a=x y $a"]})
    request = ResolveRequest(namespace="default", bundle="web", contract=contract)
    macros = expander([Foreign(MacroValue(value="!rand 8 hex $b")), BuiltinMacros()])
    found = await resolve(request, expand=macros)
    assert {name: option.value for name, option in found.options.items()} == {
        "a": "!rand 8 hex $b",
        "b": "<!rand 8 hex $b>",
        "c": "!rand 8 hex $b",
    }


async def test_what_a_macro_says_of_a_mistake_fits_on_a_line() -> None:
    request = ResolveRequest(namespace="default", bundle="web", contract=contract_of({"a": ["!foreign"]}))
    with pytest.raises(InvalidError) as caught:
        await resolve(request, expand=expander([Foreign(InvalidError("no\n\x1b[2J" + "x" * 9000))]))
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith("options are invalid: a: no\\n\\x1b[2Jxxx")
    assert len(message) < 600
