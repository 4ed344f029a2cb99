from __future__ import annotations

import pytest

from nanocloud.errors import InvalidError, PluginError
from nanocloud.macros import BuiltinMacros
from nanocloud.planning import expander
from nanocloud.providers.macro import MacroContext

CONTEXT = MacroContext(namespace="default", bundle="web", option="a", options={})


async def test_a_macro_goes_to_the_provider_that_offers_it() -> None:
    value = await expander([BuiltinMacros()])("tls", ["ca"], CONTEXT)
    assert value.value == "/run/nanocloud/tls/ca.crt"


async def test_an_unknown_macro_lists_the_known_ones() -> None:
    with pytest.raises(InvalidError, match=r"!rnd is not a known macro; did you mean !rand\?; macros: !bundle, !dns"):
        await expander([BuiltinMacros()])("rnd", [], CONTEXT)


def test_two_owners_of_one_macro_are_refused() -> None:
    with pytest.raises(PluginError, match="macro !bundle is offered by builtin and by builtin"):
        expander([BuiltinMacros(), BuiltinMacros()])
