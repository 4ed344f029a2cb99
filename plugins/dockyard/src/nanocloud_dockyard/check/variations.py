"""Which options an image is tried with: its defaults, and then every other choice of every option once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nanocloud.planning.contract import ImageContract, Setting


def variations(contract: ImageContract, given: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """``given`` alone first; then with one choice that neither it nor the defaults take.

    What a choice requires to have a certain value gets it. Choices of two options are not combined.
    """
    yield dict(given)
    for option in contract.options.values():
        if option.name in given:
            continue
        choices = list(option.choices.items())
        for value, setting in choices if option.optional else choices[1:]:
            tried = {**_required(setting), **given, option.name: value}
            if tried != given:
                yield tried


def _required(setting: Setting) -> dict[str, str]:
    return {r.option: r.value for r in setting.requires if r.value is not None}


def shown(options: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in options.items()) or "defaults"
