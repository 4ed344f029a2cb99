"""What a service says about itself, as JSON for people and programs: the catalogue entry of one image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nanocloud.planning.contract import CAPABILITIES_LABEL
from nanocloud.planning.exports import image_exports
from nanocloud.planning.label import image_contract
from nanocloud.planning.plan import capability_label
from nanocloud.planning.schema import options_schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nanocloud.planning.contract import ImageContract


def describe_image(labels: Mapping[str, str]) -> dict[str, Any]:
    """Options as JSON Schema, the services that can be selected, the bindings that run there, exports, capabilities.

    Raises:
        LabelError: a label cannot be read; says where and why.
    """
    contract, exports = image_contract(labels), image_exports(labels)
    return {
        "schema": options_schema(contract),
        "services": {
            name: [value for value, setting in option.choices.items() if setting.selects_service]
            for name, option in contract.options.items()
            if option.can_select
        },
        "bindings": _bindings(contract),
        "exports": {
            "options": sorted(exports.options),
            "bindings": sorted(exports.bindings),
            "owned": {command: list(positions) for command, positions in sorted(exports.owned.items())},
        },
        "capabilities": [f"CAP_{name}" for name in sorted(capability_label(labels.get(CAPABILITIES_LABEL, "")))],
    }


def _bindings(contract: ImageContract) -> list[dict[str, Any]]:
    """In the label's order; ``when`` is the choice under which the binding runs, absent where it always does."""
    return [
        {"option": binding.runs_in, "command": binding.command, "arguments": list(binding.words)}
        | ({"when": f"{setting.option}={setting.choice}"} if setting.choice is not None else {})
        for setting in contract.settings
        for binding in setting.bindings
    ]
