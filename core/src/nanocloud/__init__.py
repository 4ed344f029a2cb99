"""Nanocloud turns one Linux machine into a small cloud. Plugins import ``hookimpl`` from here."""

from importlib.metadata import PackageNotFoundError, version

import pluggy

__all__ = ["__version__", "hookimpl"]

try:
    __version__ = version("nanocloud")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

hookimpl = pluggy.HookimplMarker("nanocloud")
