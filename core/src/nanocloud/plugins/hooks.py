"""Whether a plugin's module implements hooks as they are meant to be. Pure; what it looks at is the plugin's."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from nanocloud import hookspecs
from nanocloud.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pluggy

_MARK = "nanocloud_impl"
"""The attribute that ``hookimpl`` gives a function."""
_ARGUMENTS = {
    name: tuple(inspect.signature(function).parameters)
    for name, function in vars(hookspecs).items()
    if hasattr(function, "nanocloud_spec")
}
CONFIGURED = tuple(hook for hook, given in _ARGUMENTS.items() if given == ("config",))
"""Hooks that need nothing but the configuration."""


def check_arguments(module: object) -> None:
    """See that every function with the name of a hook is marked as one, and takes what the hook gives.

    Raises:
        PluginError: names the hook.
    """
    for hook, given in _ARGUMENTS.items():
        function = getattr(module, hook, None)
        if function is None:
            continue
        if not hasattr(function, _MARK):
            raise PluginError(f"{hook} is not marked with @hookimpl")
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise PluginError(f"{hook} is async: hooks are plain functions, providers have the async methods")
        for parameter in inspect.signature(function).parameters.values():
            name, own = parameter.name, parameter.default is not parameter.empty
            if own and name in given:
                raise PluginError(f"{hook} has a default for {name}, so {name} would not be given")
            if own or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            if name not in given:
                raise PluginError(f"{hook} takes {name}; there is {', '.join(given) or 'nothing'} to take")
            if parameter.kind is parameter.KEYWORD_ONLY:
                raise PluginError(f"{hook} takes {name} by keyword alone")


def check_implementations(callers: Sequence[pluggy.HookCaller], module: object) -> None:
    """See that what was registered are hooks of this node, or such as the plugin can do without.

    Raises:
        PluginError: a hook that this node does not have, or an implementation of a kind that is never called.
    """
    unknown = []
    for caller in callers:
        for implementation in caller.get_hookimpls():
            if implementation.plugin is not module:
                continue
            if implementation.hookwrapper or implementation.wrapper:
                raise PluginError(f"wraps the hook {caller.name}: hooks are implemented, never wrapped")
            if not caller.has_spec() and not implementation.optionalhook:
                unknown.append(caller.name)
    if unknown:
        raise PluginError(f"implements unknown hooks: {', '.join(sorted(unknown))}")
