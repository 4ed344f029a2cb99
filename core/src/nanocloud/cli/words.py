"""Command lines that need no typer: those of quick commands, where they are plain, and the first ``--help``.

A form names the words that a quick command takes; a test holds it equal to what typer declares for that command. Words
that a form does not know, or that stand together in one (``-wn demo``), are left to typer, which reads them or says
what is wrong.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any


class Form:
    """The words of one command, and the names of the parameters of its function that they stand for."""

    def __init__(
        self,
        target: str,
        *,
        flags: Mapping[str, str],
        values: Mapping[str, str],
        arguments: Sequence[str],
        rest: str = "",
        stays: bool = False,
    ) -> None:
        self.target, self.flags, self.values, self.arguments = target, flags, values, arguments
        self.stays = stays
        """It runs threads and has things to put away at its end."""
        self.rest = rest
        """The parameter for everything behind ``--``, which then has to be there."""

    def read(self, words: Sequence[str]) -> dict[str, Any] | None:
        """The function's keyword arguments; None for what is not plain."""
        given: dict[str, Any] = {}
        if self.rest:
            if "--" not in words:
                return None
            end = words.index("--")
            words, given[self.rest] = words[:end], list(words[end + 1 :])
        waiting, left = list(self.arguments), iter(words)
        for word in left:
            name, equals, value = word.partition("=")
            if word in self.flags:
                given[self.flags[word]] = True
            elif name in self.values and (not equals or name.startswith("--")):
                text = value if equals else next(left, None)
                if text is None:
                    return None
                given[self.values[name]] = text
            elif waiting and word and not word.startswith("-"):
                given[waiting.pop(0)] = word
            else:
                return None
        return None if self.rest and waiting else given


QUICK = {
    "status": Form(
        "nanocloud.cli.overview:show",
        flags={"--pods": "pods", "--watch": "watch", "-w": "watch", "--curl": "curl"},
        values={"--namespace": "namespace", "-n": "namespace", "--output": "output", "-o": "output"},
        arguments=("service",),
    ),
    "exec": Form(
        "nanocloud.cli.remote:execute",
        flags={
            "--stdin": "interactive",
            "-i": "interactive",
            "--tty": "terminal",
            "-t": "terminal",
            "--as-binding": "as_binding",
            "--curl": "curl",
        },
        values={"--namespace": "namespace", "-n": "namespace", "--container": "container", "-c": "container"},
        arguments=("pod",),
        rest="command",
    ),
    "server": Form(
        "nanocloud.cli.serving:serve",
        flags={},
        values={"--listen": "listen", "--log-format": "log_format"},
        arguments=(),
        stays=True,
    ),
}


def quick_call(words: Sequence[str]) -> Callable[[], int | None] | None:
    """The command that ``words`` ask for, if it is quick and they are plain; it gives the exit status, None for 0."""
    form = QUICK.get(words[0]) if words else None
    given = form.read(words[1:]) if form is not None else None
    if form is None or given is None:
        return None
    module, _, name = form.target.partition(":")
    return partial(getattr(import_module(module), name), **given)


def leaves_nothing(words: Sequence[str]) -> bool:
    """Whether the command has nothing to put away once it is done, so that its process may end on the spot."""
    if list(words[:2]) in (["plugin", "list"], ["plugin", "show"]):
        return True  # threads that plugins started are not waited for: they may never end
    form = QUICK.get(words[0]) if words else None
    return form is not None and not form.stays and form.read(words[1:]) is not None


def asks_for_help(words: Sequence[str]) -> bool:
    """Of the program as a whole."""
    return list(words) in ([], ["--help"], ["-h"])


def asks_for_a_plan(words: Sequence[str]) -> bool:
    """Whether a command line only wants to see a plan."""
    given = words[: words.index("--")] if "--" in words else words
    commands = [word for word in given if not word.startswith("-")]
    return "--dry-run" in given or list(commands[:2]) == ["bundle", "diff"]
