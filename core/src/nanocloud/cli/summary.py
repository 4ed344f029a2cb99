"""What ``nanocloud --help`` says."""

from __future__ import annotations

from nanocloud.cli.commands import COMMANDS
from nanocloud.cli.groups import known_groups
from nanocloud.output import printable

_HEAD = """\
Usage: nanocloud [OPTIONS] COMMAND [ARGS]...

  Turn this machine into a small cloud.

Options:
  --debug               Show the traceback of an error.
  --install-completion  Install completion for the current shell.
  --show-completion     Show completion for the current shell.
  -h, --help            Show this message and exit.

Commands:"""


def summary() -> str:
    """The commands with a line each; imports none of them."""
    groups = known_groups()
    width = max(map(len, [*COMMANDS, *groups]))
    lines = [_HEAD, *(f"  {name:{width}}  {text}" for name, (_, text) in COMMANDS.items())]
    if groups:
        lines += ["", "Commands of plugins:"]
        lines += [f"  {name:{width}}  {printable(text)}" for name, text in sorted(groups.items())]
    return "\n".join(lines)
