"""JSON Schema of an image's options: what a form, an editor or a client may offer for ``spec.options``.

It accepts every value that resolution accepts, whatever the other options are. What depends on other options
(requirements, imports that must agree) and the last detail of some forms (addresses, paths that are kept) it does not
say: those the plan tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nanocloud.planning.reserved import MAX_VALUE_LENGTH, Reserved, reserved

if TYPE_CHECKING:
    from nanocloud.planning.contract import ImageContract, Option

SECRET = "x-nanocloud-secret"  # noqa: S105
SELECTS = "x-nanocloud-selects-service"
REQUIRES = "x-nanocloud-requires"
MACRO = "x-nanocloud-macro"
TEMPLATE = "x-nanocloud-template"
IMPORT = "x-nanocloud-import"

_PORT = "(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})"
_FORMS = {
    Reserved.PORT: (
        rf"^((([0-9.]+|\[[0-9a-fA-F:.]+\]):)?{_PORT}->)?{_PORT}(/(tcp|udp))?$",
        "port[/proto], or [hostip:]hostport->containerport[/proto] to publish it on the node; proto is tcp or udp",
    ),
    Reserved.VOLUME: (r"^/[^/]", "where the volume is mounted: an absolute path"),
    Reserved.VOLUME_SIZE: (
        r"^[0-9]{1,20}(\.[0-9]{1,9})?([KMGTPE]i|[kMGTPE]|[eE][0-9]{1,2})?$",
        "a size such as 10Gi or 500M",
    ),
    Reserved.VOLUME_ENCRYPTED: (
        r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?(:(ext4|xfs|btrfs))?$",
        "key[:fstype]: the name of a volume key; fstype is ext4, xfs or btrfs",
    ),
    Reserved.SECRET_ENV: (r"^\??[a-z0-9.-]+:[-._a-zA-Z0-9]{1,253}$", "[?]secret:key: a Secret and a key in it"),
    Reserved.COMMAND: (None, "a JSON list of words, or words split as a shell does"),
    Reserved.ARGUMENTS: (None, "a JSON list of words, or words split as a shell does"),
}


def options_schema(contract: ImageContract) -> dict[str, Any]:
    """A JSON Schema object with one property an option.

    ``default`` is present where the label says a literal or a first choice: giving it changes nothing. Extensions:
    ``x-nanocloud-macro`` and ``x-nanocloud-template`` are the macro, or the text with ``$option`` in it, that the
    default is made from; ``x-nanocloud-secret``; ``x-nanocloud-requires``: the options that a free option needs;
    ``x-nanocloud-selects-service``: the choices that select another service; ``x-nanocloud-import``: the option whose
    selected service supplies a value that the image does not declare, so that a form leaves it alone.
    """
    required = [name for name, option in contract.options.items() if _must_be_given(option, contract)]
    properties = {name: _property(option, contract) for name, option in contract.options.items()}
    for name, source in contract.imports.items():
        if name not in contract.options:
            found = {"type": "string", "maxLength": MAX_VALUE_LENGTH, IMPORT: source.option}
            properties[name] = found | _secret(name, contract)
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
    return schema | ({"required": required} if required else {})


def _must_be_given(option: Option, contract: ImageContract) -> bool:
    # One that a selected service may supply, or whose requirements may not hold, may be left out.
    free = option.free
    return bool(
        free and not option.optional and not free.default and not free.requires and option.name not in contract.imports
    )


def _property(option: Option, contract: ImageContract) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "string"}
    if option.choices:
        found["enum"] = [*option.choices, *([""] if option.optional else [])]
        if not option.optional:
            found["default"] = next(iter(option.choices))
        if selecting := [value for value, setting in option.choices.items() if setting.selects_service]:
            found[SELECTS] = selecting
    else:
        found |= _form(option.name) | {"maxLength": MAX_VALUE_LENGTH}
    if option.free and option.free.default:
        default = option.free.default
        # Given values are never expanded, so what still holds $option is no default that could be given.
        word = MACRO if default.macro else TEMPLATE if default.references else "default"
        found[word] = default.text
    if option.free and option.free.requires:
        found[REQUIRES] = [str(requirement) for requirement in option.free.requires]
    return found | _secret(option.name, contract)


def _secret(name: str, contract: ImageContract) -> dict[str, Any]:
    return {SECRET: True, "writeOnly": True} if name in contract.secrets else {}


def _form(name: str) -> dict[str, Any]:
    """What a reserved name asks of its value."""
    kind = reserved(name)
    if kind is None or kind[0] not in _FORMS:
        return {}
    pattern, description = _FORMS[kind[0]]
    return {"description": description} | ({"pattern": pattern} if pattern else {})
