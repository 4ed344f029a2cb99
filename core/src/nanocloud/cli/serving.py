"""``server`` as it runs for months: without typer, which would stay in memory (see ``words``)."""

from __future__ import annotations

import os

import attrs
import trio

from nanocloud.concurrency import unwrapped
from nanocloud.config import load
from nanocloud.errors import UsageError
from nanocloud.identity.assets import require_root
from nanocloud.node import serve_until_signal
from nanocloud.observability.logs import configure


def serve(*, listen: str | None = None, log_format: str = "text") -> None:
    """Run the node until it is told to end."""
    if log_format not in ("text", "json"):
        raise UsageError(f"--log-format is {log_format!r}; allowed: text, json")
    require_root()
    config = load()
    if listen is not None:
        config = attrs.evolve(config, listen=listen)
    configure("json" if log_format == "json" else "text")
    os.umask(0o077)
    with unwrapped():
        trio.run(serve_until_signal, config)
