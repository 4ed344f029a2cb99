"""Nanocloud turns one Linux machine into a small cloud. Plugins import ``hookimpl`` from here.

Both names are made when they are first asked for: every command imports this package, few need pluggy.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pluggy

    __version__: str
    hookimpl: pluggy.HookimplMarker

__all__ = ["__version__", "hookimpl"]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            value: object = version("nanocloud")
        except PackageNotFoundError:  # a source tree that was never installed
            value = "0+unknown"
    elif name == "hookimpl":
        import pluggy

        value = pluggy.HookimplMarker("nanocloud")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value
