"""JSON Schema of an image's options: what a form, an editor or a client may offer for ``spec.options``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nanocloud.planning.reserved import MAX_VALUE_LENGTH

if TYPE_CHECKING:
    from nanocloud.planning.contract import ImageContract, Option

SECRET = "x-nanocloud-secret"  # noqa: S105
SELECTS = "x-nanocloud-selects-service"
REQUIRES = "x-nanocloud-requires"
MACRO = "x-nanocloud-macro"


def options_schema(contract: ImageContract) -> dict[str, Any]:
    """A JSON Schema object with one property an option.

    ``default`` is present where the label says a literal or a first choice. Extensions: ``x-nanocloud-macro`` the macro
    that decides the default, ``x-nanocloud-secret``, ``x-nanocloud-requires`` (the options that a free option needs)
    and ``x-nanocloud-selects-service`` (the choices that select another service).
    """
    required = [name for name, option in contract.options.items() if _must_be_given(option)]
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {name: _property(option, contract) for name, option in contract.options.items()},
        "additionalProperties": False,
    }
    return schema | ({"required": required} if required else {})


def _must_be_given(option: Option) -> bool:
    # One that a selected service may supply, or whose requirements may not hold, may be left out.
    return bool(option.free and not option.optional and not option.free.default and not option.free.requires)


def _property(option: Option, contract: ImageContract) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "string"}
    if option.choices:
        found["enum"] = [*option.choices, *([""] if option.optional else [])]
        if not option.optional:
            found["default"] = next(iter(option.choices))
        if selecting := [value for value, setting in option.choices.items() if setting.selects_service]:
            found[SELECTS] = selecting
    else:
        found["maxLength"] = MAX_VALUE_LENGTH
    if option.free and option.free.default:
        default = option.free.default
        found |= {MACRO: default.text} if default.macro else {"default": default.text}
    if option.free and option.free.requires:
        found[REQUIRES] = [str(requirement) for requirement in option.free.requires]
    if option.name in contract.secrets:
        found |= {SECRET: True, "writeOnly": True}
    return found
