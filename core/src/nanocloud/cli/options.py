"""Options that several commands share, and the API they lead to."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from nanocloud.client.api import Api
from nanocloud.client.endpoint import find_endpoint
from nanocloud.errors import UsageError

Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace of the service.")]
Curl = Annotated[bool, typer.Option("--curl", help="Print the equivalent request; send nothing.")]
Service = Annotated[str, typer.Argument(help="Name of the service.", show_default=False)]
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "": 1}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd]|$)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")


def api(*, curl: bool = False) -> Api:
    """A connection to the node; with ``curl`` requests are printed instead of sent."""
    return Api(find_endpoint(), show=print if curl else None)


def parse_duration(text: str) -> float:
    """Seconds of ``90``, ``90s``, ``5m``, ``2h``, ``1d`` or sums such as ``1h30m``."""
    if not _DURATION.fullmatch(text):
        raise UsageError(f"{text!r} is not a duration; write 30s, 5m, 2h, 1d or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
