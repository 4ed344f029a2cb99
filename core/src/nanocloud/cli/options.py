"""Options that several commands share, and the API they lead to."""

from __future__ import annotations

from typing import Annotated

import typer

from nanocloud.client.api import Api
from nanocloud.client.endpoint import find_endpoint
from nanocloud.errors import InvalidError

Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace of the service.")]
Curl = Annotated[bool, typer.Option("--curl", help="Print the equivalent request; send nothing.")]
Service = Annotated[str, typer.Argument(help="Name of the service.", show_default=False)]


def api(*, curl: bool = False) -> Api:
    """A connection to the node; with ``curl`` requests are printed instead of sent."""
    return Api(find_endpoint(), show=print if curl else None)


def parse_duration(text: str) -> float:
    """Seconds of ``90``, ``90s``, ``5m``, ``2h``, ``1d`` or sums such as ``1h30m``."""
    units, total, number = {"s": 1, "m": 60, "h": 3600, "d": 86400}, 0.0, ""
    for letter in text:
        if letter.isdigit() or letter == ".":
            number += letter
        elif letter in units and number:
            total, number = total + float(number) * units[letter], ""
        else:
            raise InvalidError(f"{text!r} is not a duration; write 30s, 5m, 2h, 1d or 1h30m")
    return total + (float(number) if number else 0.0)
